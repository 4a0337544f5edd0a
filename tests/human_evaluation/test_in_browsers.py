"""The review page in real browsers: three reviewers fill it in, and a report comes out.

Wanted: Chromium or Firefox, Node, and once `npm install --no-package-lock` in this folder.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import zipfile
from pathlib import Path

import krippendorff
import pytest

from ccai_core.human_evaluation.key import read_key
from ccai_core.human_evaluation.results import HumanEvaluation
from flows.human_evaluation import main
from tests.human_evaluation.review_sample import HOSTILE, MODELS, TUNED, opinion, prompts

HERE = Path(__file__).parent
PROGRAMS = {"chrome": ("chromium", "google-chrome"), "firefox": ("firefox", "firefox-esr")}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(params=PROGRAMS)
def browser(request: pytest.FixtureRequest) -> tuple[str, str]:
    program = next(filter(None, map(shutil.which, PROGRAMS[request.param])), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS[request.param])} is installed")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (HERE / "node_modules" / "puppeteer-core").is_dir():
        pytest.skip(f"run `npm install --no-package-lock` in {HERE.name} to drive a browser")
    return request.param, program


def test_three_reviewers_from_the_package_to_the_report(browser, tmp_path, capsys):
    answers = tmp_path / "answers.jsonl"
    rows = [
        {
            "prompt": p.text,
            "model": model,
            "answer": p.answers[model] + (HOSTILE if p.id == "p0001" else ""),
            "score": p.scores[model],
            "label": p.label,
            "harmful": p.harmful,
            "held_out": True,
        }
        for p in prompts(6)
        for model in MODELS
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "review"
    assert main(["build", "--answers", str(answers), "--prompts", "6", "--out", str(out)]) == 0
    with zipfile.ZipFile(out / "expert_review_package.zip") as package:
        package.extractall(tmp_path)
    key = read_key(out / "expert_review_key.json")
    rng, files = random.Random(0), []
    for page in key.reviewers:
        opinions = {item.id: opinion(item, rng) for item in page.items}
        skipped = next(i.id for i in page.items if not i.is_check and key.prompts[i.prompt].harmful)
        opinions[skipped] = {"skip": True}
        seen = _fill_in(browser, tmp_path, page.id, opinions)
        assert seen["violations"] == []
        assert seen["overflow"] == []
        assert seen["errors"] == []
        assert seen["ran"] is None
        assert {url.partition(":")[0] for url in seen["requests"]} <= {"file", "blob", "data"}
        assert seen["restored"] == [len(page.items), len(page.items)]
        files.append(seen["file"])
    capsys.readouterr()

    assert (
        main(
            [
                "collect",
                *files,
                "--key",
                str(out / "expert_review_key.json"),
                "--workspace",
                str(out),
            ]
        )
        == 0
    )

    result = HumanEvaluation.model_validate_json((out / "expert_review.json").read_text("utf-8"))
    assert [card.counted for card in result.reviewers] == [True] * 3
    assert [card.skipped for card in result.reviewers] == [1] * 3
    assert [card.done + card.skipped for card in result.reviewers] == [18] * 3
    assert result.rejected == {}
    assert result.comments[0].text == "Fine, so far. Ünïcode ✓"
    assert (out / "expert_review.html").is_file()
    assert TUNED in (out / "expert_review.md").read_text("utf-8").replace("\\", "")
    report = _in_browser(browser, {"page": str(out / "expert_review.html")})
    assert (report["violations"], report["overflow"], report["errors"]) == ([], [], [])
    for line in result.agreement:
        assert line.alpha.estimate == pytest.approx(_alpha(key, files, line.question))


def _fill_in(browser: tuple[str, str], folder: Path, page: str, opinions: dict) -> dict:
    downloads = folder / f"downloads-{page}"
    downloads.mkdir()
    plan = {
        "page": str(folder / "expert_review" / f"review-{page}.html"),
        "downloads": str(downloads),
        "opinions": opinions,
        "comment": "Fine, so far. Ünïcode ✓",
    }
    return _in_browser(browser, plan)


def _in_browser(browser: tuple[str, str], plan: dict) -> dict:
    done = subprocess.run(
        ["node", str(HERE / "reviewer.mjs")],
        input=json.dumps({"browser": browser[0], "program": browser[1], **plan}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _alpha(key, files: list[str], question: str) -> float:
    """Krippendorff's alpha by the package of that name, from the files as they were saved."""
    things: dict[tuple, dict[str, float]] = {}
    for file in files:
        values = json.loads(Path(file).read_text("utf-8"))
        items = {item.id: item for item in key.reviewer(values["reviewer"]).items}
        for answer in values["answers"]:
            item = items[answer["id"]]
            if item.is_check or answer["skipped"]:
                continue
            if question == "preference" and item.kind == "pair":
                first = {"a": 1.0, "equal": 0.5, "b": 0.0}[answer["choice"]]
                points = first if item.models[0] == MODELS[0] else 1 - first
                things.setdefault((item.prompt,), {})[values["reviewer"]] = points
            elif question in answer["ratings"]:
                thing = things.setdefault((item.prompt, item.models), {})
                thing[values["reviewer"]] = answer["ratings"][question]
    table = [
        [given.get(page.id, float("nan")) for given in things.values()] for page in key.reviewers
    ]
    return krippendorff.alpha(table, level_of_measurement="ordinal")
