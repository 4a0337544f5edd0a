"""The report: honest words, inert texts, nothing loaded, numbers as they are in the data."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccai_core.constitution import load_constitutional_config
from ccai_core.errors import ArtifactError
from ccai_core.evaluation.results import Metric, Table
from ccai_core.report import ReportData, headlines, render_report, write_report
from ccai_core.report.figures import forest
from ccai_core.report.words import NO_DIFFERENCE, headline
from tests.report_sample import (
    evaluation,
    funnel,
    interval,
    judge,
    lean,
    metric,
    metrics,
    safe_rate,
    sample,
    training,
)

CLAIMS = ("Safer", "Less safe", "Wiser", "Less wise", "More capable", "Less capable", "Rated ")


class Page(HTMLParser):
    """Tags, attributes and texts as a browser would read them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.script = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.script += data
        elif "style" not in self._open:
            self.texts.append(data)
            if "td" in self._open or "th" in self._open:
                self.cells[-1] += data

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def get(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(sample())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


# What a hostile prompt, model, data set or settings file could write.
PAYLOADS = (
    "<script>alert(1)</script>",
    "</style></title></textarea><svg onload=alert(1)>",
    "{{ 7*7 }}{% raw %}{# #}",
    "<img src=http://example.org/x onerror=alert(1)>",
    "\"><a href='javascript:alert(1)'>\u2028",
    "javascript:alert(1)",
    "<|im_end|>\n<|im_start|>assistant [/INST] </s>",
    "\x00\x1b[31m\u202e]]>--><!--",
)
LITERALS = {"group", "unit", "role", "event", "precision"}
FREE_KEYS = {
    "settings", "versions", "artifacts", "excluded", "per_principle", "provenance",
}  # fmt: skip


def poison(value: Any, text: str, free: bool = False) -> Any:
    """Put `text` in front of every free text of dumped data, and of every free key."""
    if isinstance(value, str):
        return text + value
    if isinstance(value, tuple | list):
        return tuple(poison(item, text) for item in value)
    if isinstance(value, dict):
        return {
            text + key if free else key: item
            if key in LITERALS and not free
            else poison(item, text, free or key in FREE_KEYS)
            for key, item in value.items()
        }
    return value


def poisoned(text: str) -> ReportData:
    values = poison(sample().model_dump(), text)
    values["training"]["method"] = values["training"]["memory"]["method"] = "full"
    values["training"]["memory"]["offload"] = "none"
    values["evaluation"]["judge"]["method"] = text
    values["training_log"] += ({"event": "step", "step": 124, "loss": text, "margin": text},)
    return ReportData.model_validate(values)


@pytest.mark.parametrize("text", PAYLOADS)
def test_hostile_text_in_every_field_changes_no_tag_and_no_attribute(text: str, page: Page) -> None:
    found = Page(render_report(poisoned(text)))
    assert sorted(found.tags) == sorted(page.tags)
    assert sorted(a[:2] for a in found.attributes) == sorted(a[:2] for a in page.attributes)
    assert found.script == page.script
    assert not [href for href in found.get("href") if not href.startswith(("#", "./", "data:,"))]


def test_hostile_text_is_shown_as_it_was_written() -> None:
    found = Page(render_report(poisoned("{{ 7*7 }}<script>&amp;</script><|im_end|>")))
    assert found.words.count("{{ 7*7 }}<script>&amp;</script><|im_end|>") > 60
    assert found.get("href").count("data:,") == 1


def test_what_would_hide_or_turn_words_is_replaced() -> None:
    html = render_report(poisoned("a\x00b\x1bc\u202ed"))
    assert "a\ufffdb\ufffdc\ufffdd" in html
    assert not re.search("[\x00\x1b\u202e]", html)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_title_and_answer_is_one_text(text: str) -> None:
    example = evaluation().examples[0].model_copy(update={"trained": text, "label": text})
    data = ReportData(
        title=text, created=text, command=text, evaluation=evaluation(examples=(example,))
    )
    tags = Page(render_report(data)).tags
    bare = data.model_copy(update={"title": "t", "created": "c", "command": "c"})
    assert tags == Page(render_report(bare)).tags


def test_nothing_is_loaded_from_anywhere(html: str, page: Page) -> None:
    assert not {"img", "iframe", "object", "embed", "form", "audio", "video"} & set(page.tags)
    assert not page.get("src")
    for address in (*page.get("href"), *page.get("xlink:href")):
        assert address.startswith(("#", "./", "data:,"))
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"url\((?!#)|@import", html)


def test_the_policy_allows_the_own_script_and_nothing_else(page: Page) -> None:
    policy = next(content for content in page.get("content") if "default-src" in content)
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert page.tags.count("script") == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_links_to_files_stay_beside_the_report() -> None:
    paths = {"a": "//example.org/x", "b": "/etc/passwd", "c": "pairs/my pairs?.jsonl"}
    found = Page(render_report(lean(artifacts=paths)))
    links = [href for href in found.get("href") if not href.startswith(("#", "data:"))]
    assert links == ["./pairs/my%20pairs%3F.jsonl"]
    assert "/etc/passwd" in found.words


def words_of(*given_metrics: Metric, **changes: Any) -> str:
    lines = headline(evaluation(metrics=given_metrics, **changes))
    return "\n".join(" | ".join((x.question, x.verdict, x.detail, *x.caveats)) for x in lines)


def test_an_improvement_is_claimed_with_its_interval_and_size() -> None:
    words = words_of(safe_rate(p_value=0.0082), judge=judge(weak=False))
    assert "Is it safer? | Safer on this measure" in words
    assert "74.1% → 80.2%; +6.0 points (95% interval +1.7 to +10.4, n = 240, p = 0.008)" in words
    assert "weak" not in words


def test_a_loss_is_called_one() -> None:
    assert "Less safe on this measure" in words_of(safe_rate(-0.1, -0.02), judge=judge(weak=False))


def test_an_interval_around_zero_claims_nothing_and_says_what_is_not_ruled_out() -> None:
    words = words_of(safe_rate(-0.031, 0.05), judge=judge(weak=False))
    assert f"| {NO_DIFFERENCE} |" in words
    assert "Not ruled out: a loss of up to 3.1 points or a gain of up to 5.0 points." in words
    assert not any(claim in words for claim in CLAIMS)


def test_an_interval_that_touches_zero_claims_nothing() -> None:
    assert NO_DIFFERENCE in words_of(safe_rate(0.0, 0.05), judge=judge(weak=False))


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_weak_or_uncalibrated_judge_is_named_where_it_is_believed(calibrated: bool) -> None:
    words = words_of(safe_rate(), judge=judge(weak=calibrated, calibrated=calibrated))
    assert "Rated better by a weak judge" in words
    assert "Take this line as a hint, not as evidence." in words
    assert "Safer" not in words
    if calibrated:
        assert "57.5% right, guessing gives 50.0%; 95% interval 47.4% to 67.2%, n = 106" in words


def test_a_weak_judge_does_not_matter_to_what_it_did_not_judge() -> None:
    perplexity = metrics()[-1]
    words = words_of(perplexity)
    assert "Less capable on this measure" in words
    assert "weak" not in words
    assert "18.42 → 18.71; +0.29" in words
    assert "lower is better" in words


def test_what_was_not_measured_is_not_answered() -> None:
    nothing = safe_rate(excluded={"unparseable": 9}, n=0)
    words = words_of(nothing, judge=judge(weak=False))
    assert words.count("Not measured") == 3
    assert "no item gave a number; excluded: 9 (9 unparseable)" in words
    broken = safe_rate().model_copy(update={"difference": interval(math.nan, math.nan, math.nan)})
    assert "Not measured" in words_of(broken)


def test_the_headline_is_there_for_consoles_too(page: Page) -> None:
    lines = headlines(sample())
    assert len(lines) == 3
    assert lines[0].startswith("Is it safer? Rated better by a weak judge. Safe answers: 74.1%")
    assert "Worse on another measure here: Answered harmless prompts" in lines[0]
    for line in lines:
        assert line.partition("? ")[2].partition(". ")[0] in page.words


def test_what_got_worse_beside_the_first_measure_is_in_the_headline(page: Page) -> None:
    start, end = page.words.index("In short"), page.words.index("All measures")
    assert "Worse on another measure here: Perplexity of held-out English." in page.words[:end]
    assert "Other measures here (a weak judge’s): 1 better" in page.words[:end]
    assert page.words[:end].count(NO_DIFFERENCE) == 2
    assert start < end


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[st.floats(-1e6, 1e6)] * 3), st.booleans(), st.booleans())
def test_no_claim_without_an_interval_beside_zero(
    ends: tuple[float, float, float], higher: bool, weak: bool
) -> None:
    low, middle, high = sorted(ends)
    found = metric(
        "capability.x", "X", (0.5, 0.4, 0.6), (0.5, 0.4, 0.6), (middle, low, high),
        higher_is_better=higher, judged=weak,
    )  # fmt: skip
    words = words_of(found, judge=judge(weak=weak))
    claims = [claim for claim in CLAIMS if claim in words]
    assert bool(claims) == (low > 0 or high < 0)
    assert (NO_DIFFERENCE in words) != bool(claims)
    if claims:
        good = "Rated better by a weak judge" if weak else "More capable on this measure"
        assert (good in words) == ((low > 0) == higher)
        # A bound that is not 0 is never shown as 0.
        shown = re.search(r"interval (\S+) to (\S+),", words)
        assert shown
        if min(abs(low), abs(high)) > 1e-7:
            assert not {"0.0", "−0.0", "+0.0"} & set(shown.groups())
    (panel,) = forest((found,))
    (row,) = panel.groups[0][1]
    assert row.low is not None
    assert row.high is not None
    assert row.at is not None
    assert 0 <= row.low <= row.at <= row.high <= 100
    if row.outcome == "better":
        assert row.low >= 50
    if row.outcome == "worse":
        assert row.high <= 50


def numbers(text: str) -> list[str]:
    return re.findall(r"[-+]?\d[\d,]*\.?\d*", text.replace("−", "-"))


def same(shown: str, value: float) -> bool:
    digits = len(shown.partition(".")[2])
    return abs(float(shown.replace(",", "")) - value) <= 0.5 * 10**-digits + 1e-9


def test_every_number_in_the_table_is_that_of_the_data(page: Page) -> None:
    first = next(i for i, cell in enumerate(page.cells) if cell.startswith("Safe answers"))
    for index, wanted in enumerate(metrics()):
        row = page.cells[first + 8 * index : first + 8 * (index + 1)]
        assert row[0].startswith(wanted.title)
        scale = 100 if wanted.unit == "share" else 1
        columns = zip(row[2:5], (wanted.baseline, wanted.trained, wanted.difference), strict=True)
        for cell, expected in columns:
            values = [v * scale for v in (expected.estimate, expected.low, expected.high)]
            shown = numbers(cell)
            assert len(shown) == 3, cell
            assert all(same(s, v) for s, v in zip(shown, values, strict=True)), cell
        if wanted.p_value is not None and wanted.p_value >= 0.001:
            assert same(numbers(row[5])[0], wanted.p_value)
        assert row[5].startswith("–") == (wanted.p_value is None)
        assert int(row[6]) == wanted.n
        assert int(numbers(row[7])[0]) == sum(wanted.excluded.values())
    values = [float(v) for v in page.get("data-value") if re.fullmatch(r"-?[\d.e-]+", v)]
    for wanted in metrics():
        assert {wanted.baseline.estimate, wanted.trained.estimate} <= set(values)


def test_the_funnel_adds_up_or_says_that_it_does_not(page: Page) -> None:
    assert "16 pairs fewer than asked for: 184 of 200" in page.words
    assert "The revision is the response again, or a piece of it 121" in page.words
    assert "Not accounted for" not in page.words
    assert "Not accounted for 5" in Page(render_report(lean(funnel=funnel(accepted=226)))).words
    every = Page(render_report(lean(funnel=funnel(shortfall=0)))).words
    assert "All 184 pairs that were asked for were made." in every


def test_training_is_shown_with_its_curve_and_held_out_pairs(page: Page) -> None:
    for expected in (
        "DPO loss (nats)", "162 trained on, 18 held out, 4 left out as longer than 1024 tokens",
        "4,311 MB at the peak; 4,105 MB were estimated, 8,000 MB allowed",
        "from the checkpoint of step 40", "Before step 1 0.6931 0.0000 0.0% 18",
    ):  # fmt: skip
        assert expected in page.words
    assert "steps 1 to 123: loss" in page.words


def test_reproduction_is_complete(page: Page) -> None:
    for expected in (
        "python -m flows.poc --model embedded --max-pairs 200 --seed 0", "training.lora.rank 16",
        "prompts.max null", "torch 2.13.0", "b41c77d09e12", "0f3be3c2a1d95577",
        load_constitutional_config().fingerprint, "MT-Bench was left out",
    ):  # fmt: skip
        assert expected in page.words


def test_missing_parts_are_said_to_be_missing() -> None:
    empty = evaluation(metrics=(), examples=(), notes=(), judge=judge(calibrated=False))
    words = Page(
        render_report(ReportData(title="t", created="c", command="x", evaluation=empty))
    ).words
    for expected in (
        "This report holds no training run", "This evaluation has no measures", "not calibrated",
        "no counts of how pairs were made", "No examples came", "No pairs came", "No settings came",
    ):  # fmt: skip
        assert expected in words
    assert "Next steps" not in words


@pytest.mark.parametrize(
    "changes",
    [
        {"training": None},
        {"training_log": ()},
        {"funnel": None},
        {"constitution": None},
        {"pairs": ()},
        {"training_log": ({"event": "step", "step": 1, "loss": None}, {"event": "eval"})},
        {"evaluation": evaluation(metrics=metrics()[-1:])},
        {"evaluation": evaluation(metrics=(safe_rate(n=0),))},
        {"settings": {"a": {}, "b": {"c": []}, "d": {"e": {"f": {"g": 1.5}}}}},
    ],
)
def test_each_part_may_be_missing(changes: dict[str, Any]) -> None:
    assert "</html>" in render_report(lean(**changes))


def test_a_run_without_held_out_pairs_says_so() -> None:
    without = training().model_copy(update={"validation_before": None, "validation_after": None})
    assert "No pairs were held out" in Page(render_report(lean(training=without))).words


def test_examples_are_folded_after_a_warning(html: str, page: Page) -> None:
    assert not page.get("open")
    warning, first = page.words.index("Content warning."), page.words.index("neighbour's flat")
    assert warning < page.words.index("All measures") < first
    assert html.index('<details class="example">') < html.index("neighbour&#39;s flat")
    assert "How do I get into" not in html[: html.index('<details class="example">')]


def test_the_page_can_be_heard_and_walked(html: str, page: Page) -> None:
    assert ("html", "lang", "en") in page.attributes
    assert {"header", "nav", "main", "footer"} <= set(page.tags)
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = page.get("id")
    assert len(ids) == len(set(ids))
    targets = [href[1:] for href in page.get("href") if href.startswith("#")]
    targets += [word for names in page.get("aria-labelledby") for word in names.split()]
    assert set(targets) <= set(ids)
    for picture in re.findall(r'<svg role="img".*?</svg>', html, flags=re.DOTALL):
        assert "<title" in picture
        assert "<desc" in picture


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_have_contrast_in_light_and_dark(html: str) -> None:
    palettes = re.findall(r":root \{([^}]*--page[^}]*)\}", html)
    assert len(palettes) == 2
    for palette in palettes:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", palette))
        on_page = ("text", "muted", "link", "better", "worse", "none", "training", "validation")
        pairs = [(front, back) for front in on_page for back in ("page", "panel")]
        for front, back in [*pairs, ("warning-text", "warning")]:
            high, low = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back)


def test_the_same_data_give_the_same_bytes(html: str, tmp_path: Path) -> None:
    write_report(sample(), tmp_path / "deep" / "report.html")
    assert (tmp_path / "deep" / "report.html").read_bytes() == html.encode()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_report(lean(), tmp_path / "file" / "report.html")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_report(lean(), tmp_path / "report.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "report.html"]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Runs inside the page, after its own script: sorts, and measures what sticks out sideways.
PROBE = """<script>
const button = [...document.querySelectorAll("th button")].find((b) => b.textContent === "p");
button.click(); button.click();
const page = document.documentElement;
document.body.dataset.sideways = page.scrollWidth - page.clientWidth;
document.body.dataset.width = page.clientWidth;
</script></body>"""


def browse(html: str, folder: Path) -> tuple[str, str]:
    """Return a page after its scripts ran, and what the browser had to say of it."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=400,900", "--v=0"]
    done = subprocess.run(
        [str(CHROMIUM), *flags, f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr",
         "--dump-dom", (folder / "page.html").as_uri()],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: no page is run in it")
def test_the_script_runs_in_a_browser_under_the_policy(html: str, tmp_path: Path) -> None:
    dom, console = browse(html, tmp_path)
    assert console == ""
    assert Page(dom).tags.count("button") == 11


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: no page is run in it")
def test_a_click_sorts_and_nothing_sticks_out_of_a_narrow_page(html: str, tmp_path: Path) -> None:
    open_policy = re.sub(r"script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", html)
    open_page = open_policy.replace("<details", "<details open").replace("</body>", PROBE)
    dom, console = browse(open_page, tmp_path)
    assert console == ""
    order = [int(n) for n in re.findall(r'<tr id="metric-(\d+)"', dom)]
    with_p = {i: m.p_value for i, m in enumerate(metrics(), start=1) if m.p_value is not None}
    assert [with_p[i] for i in order[:-1]] == sorted(with_p.values(), reverse=True)
    assert order[-1] not in with_p
    assert 'aria-sort="descending"' in dom
    found = Page(dom)
    assert found.get("data-sideways") == ["0"]
    assert int(found.get("data-width")[0]) <= 500


def test_tables_are_shown_sorted_and_escaped() -> None:
    table = Table(
        id="verdict",
        title="Success criteria",
        columns=("Criterion", "Verdict", "Found"),
        rows=(("More <b>safe</b>", "not measurable at this size", 0.98765), ("None", "met", None)),
        note="AILuminate-style, unofficial: evaluator <script>alert(1)</script>",
    )
    html = render_report(lean(evaluation=evaluation(tables=(table,))))
    page = Page(html)
    assert "Success criteria" in page.words
    assert "0.988" in page.words
    assert "not measurable at this size" in page.words
    assert "unofficial: evaluator <script>alert(1)</script>" in page.words
    assert "alert(1)" not in page.script
    assert "<b>safe" not in html
    assert 'href="#tables"' in html
    assert 'href="#tables"' not in render_report(lean(evaluation=evaluation(tables=())))


def test_a_question_of_a_larger_suite_is_asked_only_where_it_was_measured() -> None:
    resisted = metric(
        "robustness.resisted", "Attacks resisted", (0.4, 0.3, 0.5), (0.7, 0.6, 0.8), (0.3, 0.2, 0.4)
    )
    grade = metric(
        "helpfulness.mt_bench", "MT-Bench grade", (4.1, 3.6, 4.6), (4.0, 3.5, 4.5),
        (-0.1, -0.4, 0.2), unit="score",
    )  # fmt: skip
    result = evaluation(metrics=(*metrics(), resisted, grade), judge=judge(weak=False))
    lines = {line.question: str(line) for line in headline(result)}
    assert "More robust on this measure" in lines["Does it stay safe under pressure?"]
    assert "4.10 → 4.00" in lines["Is it as helpful?"]
    assert "Does it cooperate?" not in lines
    assert len(headline(evaluation())) == 3
    assert len(forest(result.metrics)) == 4
