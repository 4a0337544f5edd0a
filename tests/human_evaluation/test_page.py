"""A reviewer's page as a file: texts inert, nothing loaded, everything labelled."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from ccai_core.human_evaluation.page import render_instructions, render_page, shipped_consent
from ccai_core.human_evaluation.questions import QUESTIONS
from ccai_core.human_evaluation.sheets import Sheet
from tests.human_evaluation.review_sample import HOSTILE, review

TRICKS = (
    HOSTILE,
    "<!-- <script>",
    "{{ 7 * 7 }} {% for x in y %}",
    "\u2028\u2029&lt;/script&gt; ]]>",
    "\u202egnilp\x00\x1b[31m\ud800",
)


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}", {}))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data


def hostile() -> Sheet:
    (sheet, *_), _ = review(8, reviewers=1)
    items = tuple(
        item.model_copy(
            update={
                "prompt": item.prompt + TRICKS[n % len(TRICKS)],
                "answers": tuple(a + TRICKS[(n + 1) % len(TRICKS)] for a in item.answers),
            }
        )
        for n, item in enumerate(sheet.items)
    )
    return sheet.model_copy(update={"items": items})


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(hostile(), shipped_consent(), "<b>me</b>@example.org")


def test_texts_are_data_and_come_out_as_they_were(html):
    page = Page(html)
    assert len(page.scripts) == 2
    items = json.loads(page.scripts[0])["items"]
    for shown, given in zip(items, hostile().items, strict=True):
        for one, other in zip(shown["answers"], given.answers, strict=True):
            assert re.sub("\ufffd", "", one) == re.sub("[\u202e\x00\x1b\ud800]", "", other)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert [tag for tag, _ in page.tags if tag in ("b", "img")] == ["b"] * 12
    assert "<b>me" not in html


def test_nothing_is_loaded_and_no_other_script_may_run(html):
    page = Page(html)
    policy = next(
        attrs["content"]
        for _, attrs in page.tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}';" in policy
    loads = [
        value
        for _, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "action", "srcset", "data")
    ]
    assert set(loads) == {"#main", "data:,"}
    for call in ("fetch(", "XMLHttpRequest", "sendBeacon", "WebSocket", "innerHTML", "eval("):
        assert call not in page.scripts[1]
    assert "@import" not in html
    assert "url(" not in html


def test_every_question_has_its_anchors_and_every_field_a_label(html):
    page = Page(html)
    for question in QUESTIONS:
        assert all(anchor in html for anchor in question.anchors)
    named = {attrs.get("for") for tag, attrs in page.tags if tag == "label"}
    areas = [attrs["id"] for tag, attrs in page.tags if tag == "textarea"]
    assert set(areas) <= named


def test_a_consent_text_of_ones_own_is_shown_instead():
    html = render_page(hostile(), "First <i>.\n\nSecond\nline.", "")
    assert "<p>First &lt;i&gt;.</p>" in html
    assert "<p>Second line.</p>" in html
    assert "voluntary" not in html


def test_the_warning_is_there_only_where_something_harmful_is():
    sheet = hostile()
    tame = sheet.model_copy(
        update={"items": tuple(i.model_copy(update={"harmful": False}) for i in sheet.items)}
    )
    marked = 'aside class="warning"'
    assert marked in render_page(sheet, "x", "")
    assert marked not in render_page(tame, "x", "")


def test_the_instructions_name_every_page():
    sheets, _ = review(8, reviewers=3)
    text = render_instructions(sheets, "a&b@example.org")
    assert [line.split()[0] for line in text.splitlines() if ".html  " in line] == [
        f"review-0{n}.html" for n in (1, 2, 3)
    ]
    assert "a&b@example.org" in text
