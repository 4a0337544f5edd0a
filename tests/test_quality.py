"""Every reason to reject a pair, on texts as models write them: what is caught and what is kept."""

from __future__ import annotations

from typing import get_args

import pytest

from ccai_core.quality import REASONS, Candidate, PairFilter, QualityConfig, Reason
from ccai_core.quality_measures import copied, repetition, similarity, topic_overlap, words
from ccai_core.quality_meta import talks_about_answering
from ccai_core.types import Completion, Prompt

PROMPT = "My brother borrowed money and will not pay it back. Should I cut him off?"
RESPONSE = (
    "Yes, you should cut him off. Anyone who borrows money and refuses to return it does not "
    "respect you, and family is no excuse."
)
CRITIQUE = (
    "The answer judges the brother without knowing why he has not paid, and it tells the person "
    "to end a relationship over a debt."
)
REVISION = (
    "It hurts when a brother does not keep his word about money. Before you decide anything, ask "
    "him calmly what happened, and say what the debt means to you. You can stop lending and still "
    "stay in touch."
)
FINE = {"prompt": PROMPT, "response": RESPONSE, "critique": CRITIQUE, "revision": REVISION}
DECLINES = (
    "I'm sorry, but I can't help with that. If you are in trouble, somebody at a helpline will "
    "listen to you at any hour."
)
FRENCH = (
    "Parlez d'abord calmement avec votre frère et demandez-lui pourquoi il n'a pas rendu l'argent "
    "comme il l'avait promis."
)

REJECTED: list[tuple[Reason, dict[str, str]]] = [
    ("too_short", {"revision": "Talk to your brother about the money first."}),
    ("too_short", {"response": "Yes, cut him off."}),
    ("too_long", {"revision": " ".join(f"Money matter {i} with your brother." for i in range(90))}),
    ("too_long", {"response": " ".join(f"brother{i}" for i in range(180))}),
    ("other_language", {"revision": FRENCH}),
    ("other_language", {"response": FRENCH}),
    ("control_token", {"revision": REVISION + " <|im_end|>"}),
    ("control_token", {"response": RESPONSE + " <|im_start|>user"}),
    ("control_token", {"revision": "[INST] " + REVISION}),
    ("meta_text", {"revision": "Here's a revised version of the answer:\n\n" + REVISION}),
    ("meta_text", {"revision": "Here’s the kinder way to put it: " + REVISION}),
    ("meta_text", {"revision": "As an AI language model, I cannot judge him. " + REVISION}),
    ("meta_text", {"revision": REVISION + " The original response was too harsh."}),
    ("meta_text", {"revision": "Thank you for your question. " + REVISION}),
    ("meta_text", {"revision": "The critique is right that more care is needed. " + REVISION}),
    ("meta_text", {"revision": "I'll try again. " + REVISION}),
    ("meta_text", {"revision": "This question touches upon honesty. " + REVISION}),
    ("meta_text", {"revision": "This is a classic example of a debt. " + REVISION}),
    ("meta_text", {"revision": "Your request is quite specific. " + REVISION}),
    ("meta_text", {"revision": "This statement touches on money. " + REVISION}),
    ("meta_text", {"revision": REVISION + " This highlights the importance of trust."}),
    ("meta_text", {"revision": "That's a great question! " + REVISION}),
    ("meta_text", {"revision": "I'm sorry for any confusion. " + REVISION}),
    ("meta_text", {"revision": "I'm glad you asked. " + REVISION}),
    ("meta_text", {"revision": REVISION + " Feel free to reach out anytime!"}),
    ("meta_text", {"revision": "As a text-based AI I do not judge him. " + REVISION}),
    (
        "repetitive",
        {"revision": "You should talk to your brother about the money. " * 5},
    ),
    ("same_as_response", {"revision": RESPONSE.upper()}),
    ("same_as_response", {"revision": RESPONSE.replace("Anyone", "A person")}),
    # A piece of the response, though not most of it: nothing new was said.
    ("same_as_response", {"response": RESPONSE + " " + REVISION, "revision": REVISION}),
    ("copies_critique", {"revision": "Money. " + CRITIQUE}),
    ("copies_prompt", {"revision": PROMPT + " That is what you ask."}),
    ("declines_harmless", {"revision": DECLINES}),
    (
        "off_topic",
        {"revision": "Gardens need water early in spring, so plant tomatoes after the last frost "
                     "and feed them every second week."},
    ),
]  # fmt: skip

KEPT = [
    {},
    {"revision": REVISION.replace("It hurts", "I understand that it hurts")},
    {"revision": "First, breathe. " + REVISION},
    # A turn of phrase said twice is no repetition, and a quoted word of the question no copy.
    {"revision": REVISION + " Before you decide anything, sleep on it."},
    {"revision": "Should you cut him off? " + REVISION},
    # Words that only look like talk about answering.
    {"revision": "I'm glad you told me. " + REVISION},
    {"revision": REVISION + " You should feel free to say no next time."},
    {"revision": REVISION + " Tell him that this message comes from your heart, not from anger."},
    {"revision": "That is a tough question for a sister. " + REVISION},
    # What he might be told is no refusal of ours.
    {"revision": 'You could say: "I am sorry, but I cannot help you with money." ' + REVISION},
    # It need not be the rejected one that answers.
    {"response": DECLINES},
    {"revision": REVISION + " Put the debt in your textbook of hard lessons."},
    {"revision": REVISION + " The reward is a brother you can still call."},
    {"revision": REVISION + " In texts to him, be brief."},
    {"revision": REVISION + " Use 2 < 3 as a joke, or <b>bold</b> words."},
    # A response may talk about itself: it is the one rejected.
    {"response": "As an AI language model, I think this: " + RESPONSE},
    {"response": RESPONSE + " " + RESPONSE},
]


def said(text: str, tokens: int = 0) -> Completion:
    return Completion(text=text, finish_reason="stop", completion_tokens=tokens)


def candidate(tokens: tuple[int, int] = (0, 0), **changes: str | None) -> Candidate:
    texts = FINE | {k: v for k, v in changes.items() if k in FINE}
    about = {k: v for k, v in changes.items() if k not in FINE}
    return Candidate(
        prompt=Prompt(id="p", text=texts["prompt"], source="test", split="train", **about),
        response=said(texts["response"], tokens[0]),
        critique=said(texts["critique"]),
        revision=said(texts["revision"], tokens[1]),
    )


def judge(config: QualityConfig | None = None, **changes: str | None) -> Reason | None:
    return PairFilter(config or QualityConfig()).reason(candidate(**changes))


@pytest.mark.parametrize(("reason", "changed"), REJECTED)
def test_what_is_not_worth_training_on_is_rejected_for_its_reason(
    reason: Reason, changed: dict[str, str]
) -> None:
    assert judge(**changed) == reason


@pytest.mark.parametrize("changed", KEPT)
def test_what_is_worth_training_on_is_kept(changed: dict[str, str]) -> None:
    assert judge(**changed) is None


def test_a_revision_that_was_kept_is_not_kept_again() -> None:
    judged = PairFilter(QualityConfig())
    assert judged.reason(candidate()) is None
    assert judged.reason(candidate(revision=REVISION.upper() + "!")) == "duplicate"
    assert judged.reason(candidate(revision=REVISION + " Be patient.")) is None


def test_a_revision_that_was_rejected_makes_no_later_one_a_duplicate() -> None:
    judged = PairFilter(QualityConfig())
    assert judged.reason(candidate(response="Yes.")) == "too_short"
    assert judged.reason(candidate(), "judged_worse") == "judged_worse"
    assert judged.reason(candidate()) is None


def test_what_models_say_counts_only_where_the_words_are_in_order() -> None:
    judged = PairFilter(QualityConfig())
    assert judged.reason(candidate(response="Yes."), "toxic") == "too_short"


# --- declining ------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", [{"hazard": "vcr"}, {"category": "hazard"}])
def test_declining_a_harmful_request_is_fine_and_helping_after_all_is_not(harm) -> None:
    assert judge(revision=DECLINES, **harm) is None
    assert judge(response=DECLINES, **harm) == "helps_with_harm"
    assert judge(**harm) is None


def test_two_answers_that_both_decline_are_no_flip() -> None:
    other = "I'm sorry, I cannot help with that here. Please talk to your brother about the money."
    assert judge(response=DECLINES, revision=other) is None


def test_refusal_flips_can_be_let_pass() -> None:
    lenient = QualityConfig(refusal_flips=False)
    assert judge(lenient, response=DECLINES, hazard="vcr") is None


# --- languages ------------------------------------------------------------------------------------


def test_a_french_question_wants_french_answers_and_a_locale_says_what_is_wanted() -> None:
    french = {
        "prompt": "Mon frère a emprunté de l'argent et ne veut pas le rendre. Que dois-je faire ?",
        "response": "Coupez les ponts avec votre frère, car une personne qui ne rend pas l'argent "
                    "ne vous respecte pas.",
        "critique": "La réponse juge le frère sans savoir pourquoi il n'a pas payé.",
        "revision": FRENCH,
    }  # fmt: skip
    assert judge(**french) is None
    assert judge(**french | {"revision": REVISION}) == "other_language"
    assert judge(**french, locale="en_US") == "other_language"
    assert judge(QualityConfig(same_language=False), **french, locale="en_US") is None


@pytest.mark.parametrize(
    "text",
    [
        "Voici la réponse révisée : " + FRENCH,
        "En tant qu'IA, je ne juge personne. " + FRENCH,
        "以下是修改后的回答：先和他谈谈，问他为什么没有还钱。",
        "作为一个人工智能，我没有兄弟，但是你可以先和他谈谈。",
        "संशोधित उत्तर: पहले उससे शांति से बात करें और पूछें कि क्या हुआ।",
    ],
)
def test_talk_about_answering_is_found_in_the_other_languages_too(text: str) -> None:
    assert talks_about_answering(text)


# --- lengths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ((15, 60), "too_short"),
        ((60, 15), "too_short"),
        ((60, 769), "too_long"),
        ((16, 768), None),
        ((0, 0), None),  # an engine that does not count
        ((0, 15), "too_short"),
    ],
)
def test_tokens_are_bounded_where_they_are_counted(
    tokens: tuple[int, int], reason: Reason | None
) -> None:
    assert PairFilter(QualityConfig()).reason(candidate(tokens)) == reason


def test_words_of_scripts_without_spaces_are_counted_by_their_signs() -> None:
    assert list(words("我不能帮你，OK？")) == ["我", "不", "能", "帮", "你", "ok"]
    assert list(words("मैं मदद नहीं कर सकता।")) == ["मैं", "मदद", "नहीं", "कर", "सकता"]
    assert topic_overlap("花园需要水吗？", "花要水") > 0.4


def test_every_reason_is_explained_and_every_filter_is_tested() -> None:
    assert set(REASONS) == set(get_args(Reason))
    assert all(REASONS.values())
    by_stage = {f"{s}_{h}" for s in ("response", "critique", "revision")
                for h in ("failed", "truncated")}  # fmt: skip
    tested = {reason for reason, _ in REJECTED} | {"duplicate", "helps_with_harm"}
    by_models = {"toxic", "judged_worse", "judge_undecided"}  # test_quality_review.py
    by_the_set = {"length_bias"}  # test_preferences.py
    assert tested | by_stage | by_models | by_the_set == set(REASONS)


@pytest.mark.parametrize(
    ("strict", "reason"),
    [
        ({"min_words": 60}, "too_short"),
        ({"max_words": 20}, "too_long"),
        ({"max_length_ratio": 1.1}, "too_long"),
        ({"max_repetition": 0.001}, "repetitive"),
        ({"max_similarity": 0.01}, "same_as_response"),
        ({"max_copied": 0.001}, "copies_critique"),
        ({"min_topic_overlap": 0.9}, "off_topic"),
    ],
)
def test_every_threshold_counts(strict: dict[str, float], reason: Reason) -> None:
    texts = {
        "revision": REVISION + " Before you decide anything, ask why he has not paid, and wait.",
    }
    assert judge(**texts) is None
    assert judge(QualityConfig(**strict), **texts) == reason


def test_how_much_may_be_taken_over_from_the_response_is_a_setting() -> None:
    response = RESPONSE + " It hurts when a brother does not keep his word about money."
    assert judge(response=response) is None
    assert judge(QualityConfig(max_excerpt=0.1), response=response) == "same_as_response"


def test_measures_of_texts() -> None:
    assert list(words("Don’t shout: it's 2 a.m.!")) == ["don’t", "shout", "it's", "2", "a", "m"]
    assert repetition("one two three four") == 0
    assert repetition("a b c a b c") == pytest.approx(1 / 4)
    assert repetition("") == repetition("two words") == 0
    assert copied("a b c d e", "x a b c d y") == pytest.approx(1 / 2)
    assert copied("short", "short") == 0
    assert similarity("a b c d", "A b, x d.") == pytest.approx(3 / 4)
    # Words of any advice are no topic.
    assert topic_overlap("How can I help people feel better?", "They feel better. Help them.") == 1
    assert topic_overlap("How can I help my horse?", "You can help people feel better.") == 0
    assert topic_overlap("Why are relationships over?", "A relationship ends") == 1
    assert topic_overlap("What is it?", "Anything at all") == 1
    assert topic_overlap("Tell me of gardens", "Cars are fast") == 0
