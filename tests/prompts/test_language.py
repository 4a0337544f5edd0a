"""Languages are told where that is sure, and only there."""

from __future__ import annotations

import pytest

from ccai_core.prompts.language import language_of, language_of_prompt
from ccai_core.types import Prompt
from tests.planted_edits import real_prompts

SURE = {
    "en": ["Should I tell my sister that her husband lost his job?",
           "My neighbour never greets me, and I would like to know why."],
    "fr": ["Est-ce que je dois pardonner à mon frère ?",
           "Mon voisin ne me salue jamais, et je voudrais savoir pourquoi."],
    "zh": ["我的邻居从来不跟我打招呼，我应该怎么办？", "我应该告诉姐姐她丈夫失业的事情吗？"],
    "hi": ["मेरा पड़ोसी मुझे कभी नमस्ते नहीं करता, मैं जानना चाहता हूँ कि ऐसा क्यों है।",
           "क्या मुझे अपनी बहन को बताना चाहिए कि उसके पति की नौकरी चली गई है?"],
    "de": ["Soll ich meinem Bruder verzeihen, dass er mich belogen hat?"],
}  # fmt: skip


@pytest.mark.parametrize("code", SURE)
def test_a_sentence_is_enough(code: str) -> None:
    assert [language_of(text) for text in SURE[code]] == [code] * len(SURE[code])


@pytest.mark.parametrize(
    "text", ["", "Why?", "hello", "Qu'est-ce?", "为什么？", "2+2=4", "😀😀😀", "print(x)",
             "https://example.com/a/b/c/d/e/f/g", "dGhpcyBpcyBub3QgYSBsYW5ndWFnZSBhdCBhbGwK" * 9],
)  # fmt: skip
def test_what_is_too_short_or_no_language_stays_open(text: str) -> None:
    assert language_of(text) is None


def test_no_real_english_prompt_is_taken_for_another_language() -> None:
    assert {language_of(text) for text in real_prompts()} == {"en", None}


def test_what_is_known_of_a_prompt_wins() -> None:
    known = Prompt(id="a", text="Why?", source="s", split="test", locale="hi_IN")
    assert language_of_prompt(known) == "hi"
    assert language_of_prompt(known.model_copy(update={"locale": None})) is None
    assert language_of_prompt(known.model_copy(update={"locale": "zh-CN"})) == "zh"
