"""The report and the comparison in a real Chromium, on a phone and a desk, with hostile texts.

Wanted: Chromium and chromedriver. CCAI_PICTURES=docs/images takes the pictures of the docs again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ccai_core.comparison.build import BuildConfig, build_comparison
from ccai_core.comparison.figures import figures
from ccai_core.comparison.page import render_page
from ccai_core.comparison.reading import read_results
from ccai_core.evaluation.results import EvaluationResult, Example, Table
from ccai_core.report import render_report
from tests.comparison.planted_results import saved, sizes
from tests.report_sample import evaluation, sample
from tests.webdriver import CHROMIUM, DRIVER, Chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium or chromedriver is not installed"
    ),
]
# Each would say so if it ever ran: as markup, out of an attribute, out of a script or its JSON.
HOSTILE = (
    "<script>window.ran = 1</script>",
    '"><img src=x onerror="window.ran = 1">',
    "</script><script>window.ran = 1</script>",
    "</title><svg onload='window.ran = 1'>",
    "{{ 7 * 7 }} ${window.ran = 1} javascript:window.ran=1",
    "</style><style>body { display: none }</style>",
)
WIDTHS = (400, 1400)
SHARES = ((0.2, 0.4), (0.3, 0.6), (0.4, 0.8))
_HIGH = 1400
_SEEN = """
document.querySelectorAll("details").forEach((each) => { each.open = true; });
const page = document.documentElement;
const box = page.getBoundingClientRect();
const outside = [...document.querySelectorAll("body *")].filter((each) => {
  for (let up = each; up; up = up.parentElement) {
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(up).overflowX)) return false;
  }
  return each.getBoundingClientRect().right > innerWidth + 1;
});
const small = [...document.querySelectorAll("p, li, td, dd")].filter(
  (each) => each.textContent.trim() && parseFloat(getComputedStyle(each).fontSize) < 11);
return {
  ran: window.ran ?? null,
  width: innerWidth,
  sideways: page.scrollWidth - page.clientWidth,
  outside: outside.map((each) => each.tagName),
  small: small.length,
  shown: getComputedStyle(document.body).display,
  text: document.body.innerText,
  scripts: document.scripts.length,
  loaded: performance.getEntriesByType("resource").map((each) => each.name),
};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def hostile() -> EvaluationResult:
    examples = tuple(
        Example(group="safety", label=text, prompt=text, baseline=text, trained=text,
                baseline_score=0.1, trained_score=0.9)
        for text in HOSTILE
    )  # fmt: skip
    table = Table(
        id="t", title=HOSTILE[1], columns=HOSTILE[:2], rows=(HOSTILE[2:4],), note=HOSTILE[0]
    )
    return evaluation(
        examples=examples, tables=(table,), notes=HOSTILE, baseline_model=HOSTILE[0] + "@1"
    )


def report(folder: Path) -> Path:
    path = folder / "report.html"
    data = sample(evaluation=hostile(), title=HOSTILE[3], notices=HOSTILE, next_steps=HOSTILE)
    path.write_text(render_report(data), encoding="utf-8")
    return path


def comparison(folder: Path) -> Path:
    first, *others = sizes(*SHARES)
    named = first.model_copy(update={
        "trained_model": f"{HOSTILE[0]}{HOSTILE[1]}@2", "notes": HOSTILE,
        "parameters": {first.baseline_model: 10**8, f"{HOSTILE[0]}{HOSTILE[1]}@2": 10**8},
    })  # fmt: skip
    return compared(folder, [named, *others], HOSTILE[0])


def compared(folder: Path, results: Sequence[EvaluationResult], command: str) -> Path:
    given = read_results(saved(folder, *results))
    built = build_comparison(given, BuildConfig(), "2026-11-27T00:00:00+00:00", command)
    path = folder / "comparison.html"
    path.write_text(render_page(built, figures(built)), encoding="utf-8")
    return path


@pytest.mark.parametrize("page", [report, comparison])
def test_pages_are_inert_quiet_and_fit(page, browser: Chromium, tmp_path: Path) -> None:
    path = page(tmp_path)
    for width in WIDTHS:
        browser.open(path, width)
        seen = browser.run(_SEEN)
        assert browser.console() == []
        assert seen["ran"] is None
        assert seen["width"] == width
        assert (seen["sideways"], seen["outside"], seen["small"]) == (0, [], 0)
        assert seen["shown"] == "block"
        assert "<script>window.ran = 1</script>" in seen["text"]
        assert seen["scripts"] == 1
        assert seen["loaded"] == []


def test_a_page_that_runs_what_it_shows_would_be_noticed(browser: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "open.html"
    path.write_text(
        f"<html><body>{HOSTILE[0]}<p style='width: 900px'>wide</p><script>nothing.at.all</script>"
    )
    browser.open(path, 400)
    seen = browser.run(_SEEN)
    assert seen["ran"] == 1
    assert seen["sideways"] > 0
    assert seen["outside"] == ["P"]
    assert any("nothing is not defined" in line for line in browser.console())


@pytest.mark.skipif("CCAI_PICTURES" not in os.environ, reason="no pictures are wanted")
def test_pictures_of_the_docs(browser: Chromium, tmp_path: Path) -> None:
    from PIL import Image

    page = tmp_path / "report.html"
    page.write_text(render_report(sample(title="Example with made-up numbers", notices=())))
    pages = {"evaluation": page, "comparison": compared(tmp_path, sizes(*SHARES), "flows.compare")}
    for name, path in pages.items():
        for width in WIDTHS:
            picture = Path(os.environ["CCAI_PICTURES"]) / f"{name}-{width}.png"
            browser.open(path, width)
            browser.picture(picture, _HIGH)
            # Plain pages have few colours; this is a third of the size.
            Image.open(picture).convert("RGB").quantize(64).save(picture, optimize=True)
