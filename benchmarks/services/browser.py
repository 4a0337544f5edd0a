"""Drive the Prefect UI with a real Chromium, as a person would, and take its pictures.

Starts PostgreSQL, Prefect, MLflow and `flows.serve`, opens the form of the quick PoC, enters a
value that is too small (it is explained next to its field, and nothing starts), corrects it, starts
the flow run, watches its page until it has completed, and follows its link to the run in MLflow.

    pip install selenium psycopg2-binary
    python benchmarks/services/browser.py --model embedded --pictures docs/images

Wants Chromium with its driver (`apt-get install chromium chromium-driver`) and PostgreSQL. Without
`--model` it takes a tiny model with random weights. Prints what it saw; exit code 1: something was
not as it must be.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":  # started as a file
    sys.path.insert(0, str(ROOT))

from benchmarks.services.records import FINAL, Api  # noqa: E402
from flows.serve_config import ServeConfig  # noqa: E402
from tests.flows.tiny_flow import write_settings  # noqa: E402
from tests.platform_lab import Platform, benchmarked  # noqa: E402

_PAGE_S, _RUN_S = 90.0, 780.0
_SIZE = (1180, 900)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="instead of a tiny one, e.g. embedded")
    parser.add_argument("--pictures", type=Path, help="folder for the screenshots")
    given = parser.parse_args()
    with benchmarked("browser", ServeConfig()) as (platform, folder):
        browser = Browser(platform, given.pictures)
        try:
            browser.all(values_of(folder, given.model))
        finally:
            browser.close()
    return 0


def values_of(folder: Path, model: str | None) -> dict[str, Any]:
    """Return what the deployment's form begins with instead of the preset's values."""
    if model:
        return {"model": model}
    values = write_settings(folder, max_pairs=4)
    # The form is to look as it does for people: below the folder of `flows.serve`, as shipped.
    return {key: value for key, value in values.items() if key not in ("workspace", "constitution")}


def check(is_right: bool, otherwise: str) -> None:
    """End with what is wrong."""
    if not is_right:
        raise SystemExit(f"WRONG: {otherwise}")


class Browser:
    """A Chromium without a screen, and what it is to see."""

    def __init__(self, platform: Platform, pictures: Path | None) -> None:
        self.platform, self.pictures = platform, pictures
        self.api = Api(platform.prefect)
        options = ChromeOptions()
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--force-dark-mode"):
            options.add_argument(word)
        options.add_argument("--window-size={},{}".format(*_SIZE))
        # Named, or Selenium would look for one on the network.
        self.driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()

    def all(self, values: dict[str, Any]) -> None:
        """Go the whole way; ends with what was not as it must be."""
        deployment = self.api.wait_for_deployment("poc", "quick")
        before = self.api.ask(f"/deployments/{deployment}")["parameters"]
        changed = {"parameters": {"config": {**before["config"], **values}}}
        self.api.patch(f"/deployments/{deployment}", changed)

        self.driver.get(f"{self.platform.prefect}/deployments/deployment/{deployment}/run")
        self.fill("Max Pairs", "0")
        self.press("Submit")
        said = self.wait(lambda: self.said_next_to("Max Pairs"), _PAGE_S, "an explanation")
        check("minimum of 1" in said, f"it says {said!r}")
        check(not self.runs(deployment), "a flow run was started with a wrong value")
        print(f"next to the field: {said}; nothing was started", flush=True)
        self.picture("prefect-form.png", self.field("Max Pairs"))

        self.fill("Max Pairs", "4")
        self.wait(lambda: not self.said_next_to("Max Pairs"), _PAGE_S, "the explanation's end")
        self.press("Submit")
        (run,) = self.wait(lambda: self.runs(deployment), _PAGE_S, "a flow run")
        check(run["parameters"]["config"]["max_pairs"] == 4, "the field's value was lost")
        print(f"started {run['name']}", flush=True)

        self.driver.get(f"{self.platform.prefect}/runs/flow-run/{run['id']}")
        self.wait(lambda: self.api.state(run["id"]) in FINAL, _RUN_S, "the end of the flow run")
        check(self.api.state(run["id"]) == "COMPLETED", f"it ended {self.api.state(run['id'])}")
        self.wait(lambda: self.sees("Completed"), _PAGE_S, "its state on the page")
        time.sleep(3)
        self.picture("prefect-run.png")
        self.follow_to_mlflow(run)

    def follow_to_mlflow(self, run: dict[str, Any]) -> None:
        """Go from the flow run's artifacts to MLflow, and back by MLflow's own link."""
        body = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        artifacts = {each["key"]: each for each in self.api.everything("/artifacts/filter", body)}
        self.driver.get(f"{self.platform.prefect}/artifacts/artifact/{artifacts['mlflow']['id']}")
        link = self.wait(
            lambda: self.find(f"//a[contains(@href, '{self.platform.mlflow}')]"), _PAGE_S, "a link"
        )
        self.driver.get(str(link.get_attribute("href")))
        self.wait(lambda: self.sees(run["name"]), _PAGE_S, "the run in MLflow")
        back = self.wait(
            lambda: self.find(f"//a[contains(@href, '{run['id']}')]"), _PAGE_S, "a link back"
        )
        print(f"MLflow shows {run['name']}, and links to {back.get_attribute('href')}", flush=True)
        time.sleep(3)
        self.picture("mlflow-run.png")

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Return the deployment's flow runs."""
        body = {"deployments": {"id": {"any_": [deployment]}}}
        return list(self.api.everything("/flow_runs/filter", body))

    def field(self, title: str) -> WebElement:
        """Return the part of the form that belongs to a field."""
        is_it = f"normalize-space(.)='{title}' or starts-with(normalize-space(.), '{title} (')"
        part = "contains(concat(' ', @class, ' '), ' schema-form-property ')"
        path = f"//*[contains(@class, 'property__label')][{is_it}]/ancestor::*[{part}][1]"
        return self.wait(lambda: self.find(path), _PAGE_S, f"the field {title}")

    def fill(self, title: str, value: str) -> None:
        """Enter a value instead of what is there."""
        entry = self.field(title).find_element(By.CSS_SELECTOR, "input")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", entry)
        entry.send_keys(Keys.CONTROL, "a")
        entry.send_keys(value)

    def said_next_to(self, title: str) -> str:
        """Return what the form says of the field's value; empty when nothing."""
        found = self.field(title).find_elements(By.CSS_SELECTOR, ".p-label__message")
        return " ".join(each.text for each in found).strip()

    def press(self, word: str) -> None:
        """Press a button."""
        path = f"//button[normalize-space(.)='{word}']"
        button = self.wait(lambda: self.find(path), _PAGE_S, f"the button {word}")
        self.driver.execute_script("arguments[0].click()", button)

    def sees(self, word: str) -> bool:
        """Whether the page shows the word."""
        return word in self.driver.find_element(By.TAG_NAME, "body").text

    def find(self, path: str) -> WebElement | None:
        """Return the first element of an XPath that is there."""
        found = self.driver.find_elements(By.XPATH, path)
        return found[0] if found else None

    def picture(self, name: str, at: WebElement | None = None) -> None:
        """Take a picture of the page as it is, with an element in its middle."""
        if self.pictures is None:
            return
        if at is not None:
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", at)
            time.sleep(1)
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(self.pictures / name))

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait until the condition says something, and return that."""
        until = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > until:
                self.picture("problem.png")
                raise TimeoutError(f"waited in vain for {what} at {self.driver.current_url}")
            time.sleep(0.5)
        return found


if __name__ == "__main__":
    sys.exit(main())
