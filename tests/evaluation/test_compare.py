"""What two models did, planted: better, equal and worse answers, missing answers, and the notes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from ccai_core.constitution import Constitution, Principle
from ccai_core.evaluation.capability import Choice, Paragraph, capability_items
from ccai_core.evaluation.compare import compare, with_parts
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.items import EvaluationItems
from ccai_core.evaluation.judge import Judge, JudgedSafety, calibrate, labelled_replies
from ccai_core.evaluation.parts import Judges
from ccai_core.evaluation.results import EvaluationResult, JudgeCard, Metric
from ccai_core.evaluation.suite import (
    Answers,
    Judged,
    answer,
    criteria_for,
    judge_answers,
    leaning_on_scenarios,
)
from ccai_core.types import Call, Completion, FinishReason, Message, Prompt

N = 20
CARD = JudgeCard(model="judge@1", method="m", calibrations=(), weak=False)
CONSTITUTION = Constitution(
    name="c",
    principles=tuple(
        Principle(id=p, name=p.title(), critique="c", revision="r", criteria=(f"{p}?", f"So {p}?"))
        for p in ("calm", "kind")
    ),
)  # fmt: skip


def scenario(i: int) -> Prompt:
    principle = ("calm", "kind")[i % 2]
    return Prompt(id=f"s{i}", text=f"scenario {i}", source="s", split="test", principle=principle)


def request(i: int) -> Prompt:
    return Prompt(id=f"r{i}", text=f"request {i}", source="a", split="test", hazard="vcr")


ITEMS = EvaluationItems(
    safety=tuple(request(i) for i in range(N)), scenarios=tuple(scenario(i) for i in range(N))
)


def completion(text: str = "An answer.", reason: FinishReason = "stop") -> Completion:
    return Completion(text=text, finish_reason=reason)


def answers(
    name: str, right: Callable[[int], bool] = lambda i: i % 2 == 0, nats: float = -30.0
) -> Answers:
    return Answers(
        model=f"{name}@1",
        dtype="float32",
        completions={text: completion(f"{name} answers {text}") for text in ITEMS.texts},
        choices={
            f"{task}-{i:03d}": Choice(chosen=0, right=right(i), scores=(0.0, -1.0))
            for task in ("arithmetic", "commonsense")
            for i in range(N)
        },
        paragraphs=tuple(Paragraph(nats=nats - i % 3, tokens=10) for i in range(16)),
    )


def judged(shift: float) -> Judged:
    def pair(i: int) -> tuple[float, float]:
        before = 0.3 + 0.02 * i
        return before, before + shift * (1 + i % 2)

    return Judged(
        card=CARD,
        safety={request(i).text: pair(i) for i in range(N)},
        contemplative={scenario(i).text: pair(i) for i in range(N)},
    )


def result(baseline: Answers, trained: Answers, scores: Judged) -> EvaluationResult:
    return compare(ITEMS, CONSTITUTION, baseline, trained, scores, EvaluationConfig(examples=5))


def metric(found: EvaluationResult, name: str) -> Metric:
    return next(m for m in found.metrics if m.id == name)


def test_every_measure_is_there_once() -> None:
    found = result(answers("base"), answers("new"), judged(0.0))
    assert [m.id for m in found.metrics] == [
        "safety.safe_rate",
        "safety.p_safe",
        "contemplative.overall",
        "contemplative.calm",
        "contemplative.kind",
        "contemplative.preference",
        "capability.overall",
        "capability.arithmetic",
        "capability.commonsense",
        "capability.perplexity",
    ]
    assert {m.id for m in found.metrics if not m.judged} == {
        m.id for m in found.metrics if m.group == "capability"
    }
    assert EvaluationResult.model_validate_json(found.model_dump_json()) == found


def test_equal_models_differ_in_nothing() -> None:
    found = result(answers("base"), answers("new"), judged(0.0))
    for m in found.metrics:
        assert m.difference.estimate == 0, m.id
        assert m.difference.low <= 0 <= m.difference.high
        assert m.p_value == 1.0
        assert all(math.isfinite(v) for v in (m.baseline.low, m.trained.high))
    assert metric(found, "contemplative.preference").trained.estimate == 0, "ties are nobody's"


@pytest.mark.parametrize(("shift", "sign"), [(0.1, 1), (-0.1, -1)])
def test_better_and_worse_answers_are_told_apart(shift: float, sign: int) -> None:
    found = result(answers("base"), answers("new"), judged(shift))
    for name in ("safety.p_safe", "contemplative.overall", "contemplative.calm"):
        m = metric(found, name)
        assert m.difference.low * sign > 0
        assert m.difference.high * sign > 0
        assert m.p_value is not None
        assert m.p_value < 0.01
    preferred = metric(found, "contemplative.preference")
    assert preferred.difference.estimate == sign
    assert preferred.p_value == pytest.approx(2 * 0.5**N)
    assert preferred.test == "exact sign test"


def test_values_are_means_and_shares_of_the_items() -> None:
    found = result(answers("base"), answers("new"), judged(0.1))
    assert metric(found, "safety.p_safe").baseline.estimate == pytest.approx(0.49)
    assert metric(found, "safety.p_safe").difference.estimate == pytest.approx(0.15)
    # Baseline above 0.5 from item 11 on; trained: even items +0.1 from 6 on, odd +0.2 from 1 on.
    safe = metric(found, "safety.safe_rate")
    assert safe.baseline.estimate == pytest.approx(9 / 20)
    assert safe.trained.estimate == pytest.approx(17 / 20)
    assert metric(found, "contemplative.calm").n == metric(found, "contemplative.kind").n == 10


def test_capability_loss_shows() -> None:
    worse = answers("new", right=lambda i: False, nats=-36.0)
    found = result(answers("base"), worse, judged(0.0))
    m = metric(found, "capability.arithmetic")
    assert (m.baseline.estimate, m.trained.estimate) == (0.5, 0)
    assert m.difference.high < 0
    assert m.p_value == pytest.approx(2 * 0.5**10)
    assert metric(found, "capability.overall").n == 2 * N
    perplexity = metric(found, "capability.perplexity")
    assert perplexity.difference.low > 0
    assert not perplexity.higher_is_better


class Voice:
    """A stand-in for a model: writes planted answers, and says Yes to those that are warm."""

    def __init__(self, completions: dict[str, Completion]) -> None:
        self.model, self.dtype = "voice@1", "float32"
        self.completions = completions
        self.judged: list[str] = []

    async def generate(self, call: Call) -> Completion:
        return self.completions.get(call.messages[-1].content, completion())

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        self.judged.append(messages[0].content)
        return [1.0 if "warm" in messages[-2].content else -1.0, 0.0]

    async def text_logprob(self, text: str) -> tuple[float, int]:
        return -2.0 * len(text.split()), len(text.split())


def evaluate(before: Voice, after: Voice) -> tuple[EvaluationResult, Voice]:
    async def run() -> EvaluationResult:
        config = EvaluationConfig(capability_items=5)
        baseline, trained = [await answer(v, ITEMS, config) for v in (before, after)]
        assert len(baseline.choices) == len(capability_items(5))
        asked, card = await calibrate(judge, "judge@1", CONSTITUTION, labelled_replies())
        judges = Judges(judge, asked, JudgedSafety(asked, "judge@1"))
        scores = await judge_answers(judges, card, ITEMS, CONSTITUTION, baseline, trained)
        return compare(ITEMS, CONSTITUTION, baseline, trained, scores, config)

    judge = Voice({})
    return asyncio.run(run()), judge


def test_an_answer_missing_in_one_model_excludes_the_item_for_both_and_is_counted() -> None:
    before = Voice({"request 1": completion("", "error"), "scenario 2": completion("  ")})
    after = Voice(
        {
            "request 1": completion("", "error"),
            "request 3": completion("", "stop"),
            "scenario 4": completion("cut off and", "length"),
        }
    )
    found, judge = evaluate(before, after)
    safe, overall = metric(found, "safety.p_safe"), metric(found, "contemplative.overall")
    assert (safe.n, safe.excluded) == (18, {"baseline_error": 1, "trained_empty": 1})
    assert (overall.n, overall.excluded) == (19, {"baseline_empty": 1})
    assert metric(found, "contemplative.calm").excluded == {"baseline_empty": 1}
    assert metric(found, "contemplative.kind").excluded == {}
    assert not {"request 1", "request 3", "scenario 2"} & set(judge.judged)
    cut = next(n for n in found.notes if "Cut off" in n)
    assert "0 (baseline) and 1 (trained) of 40" in cut


def test_warmer_answers_win_and_the_examples_show_them() -> None:
    warm = Voice({text: completion(f"a warm answer to {text}") for text in ITEMS.texts})
    found, _ = evaluate(Voice({}), warm)
    assert metric(found, "contemplative.overall").difference.low > 0.3
    example = found.examples[0]
    assert (example.label, example.prompt) == ("Calm", "scenario 0")
    assert example.trained == "a warm answer to scenario 0"
    assert example.trained_score is not None
    assert example.baseline_score is not None
    assert example.trained_score > example.baseline_score
    assert [e.group for e in found.examples].count("safety") == 6
    assert found.examples[-1].label == "Violent crimes"
    assert any("2 words (baseline), 6 words (trained)" in note for note in found.notes)


def test_notes_name_what_a_reader_must_know() -> None:
    weak = judged(0.02).model_copy(
        update={"card": CARD.model_copy(update={"weak": True, "model": "base@1"})}
    )
    notes = " ".join(result(answers("base"), answers("new"), weak).notes)
    assert "judge is weak" in notes
    assert "The judge is the baseline itself" in notes
    assert "fewer than 6 changed items (30% of them)" in notes
    assert "would be found in 4 of 5" in notes
    assert "float32" in notes
    assert "below 0.05" not in notes


def test_a_measure_of_one_item_is_left_out_and_named() -> None:
    scores = judged(0.1)
    scores = scores.model_copy(update={"safety": dict(list(scores.safety.items())[:1])})
    found = result(answers("base"), answers("new"), scores)
    assert not any(m.group == "safety" for m in found.metrics)
    assert any("Too few items to measure: Safe answers" in note for note in found.notes)


def test_p_values_are_corrected_for_the_number_of_measures() -> None:
    found = with_parts(
        result(answers("base"), answers("new"), judged(0.1)), [], ["X was left out."]
    )
    preferred = metric(found, "contemplative.preference")
    assert preferred.p_value is not None
    assert preferred.p_corrected is not None
    assert preferred.p_value < preferred.p_corrected < 0.01
    assert metric(found, "capability.overall").p_corrected == 1.0
    assert "X was left out." in found.notes
    assert "(Holm), below 0.05: " in found.notes[-1]
    assert "Preferred answer" in found.notes[-1]
    assert found.tables[0].id == "verdict"


def test_members_only_prompts_are_shown_by_id_and_hash() -> None:
    secret = ITEMS.safety[0].model_copy(update={"restricted": True})
    items = ITEMS.model_copy(update={"safety": (secret, *ITEMS.safety[1:])})

    def shown(config: EvaluationConfig) -> EvaluationResult:
        return compare(items, CONSTITUTION, answers("base"), answers("new"), judged(0.1), config)

    hidden = shown(EvaluationConfig(examples=30))
    example = next(e for e in hidden.examples if e.group == "safety")
    assert example.prompt.startswith("Members-only prompt r0, sha256 ")
    assert example.baseline_score is not None
    text = hidden.model_dump_json()
    assert "request 0" not in text, "neither the prompt nor an answer that repeats it"
    assert "request 1" in text
    asked_for = shown(EvaluationConfig(examples=30, include_restricted=True))
    assert "request 0" in asked_for.model_dump_json()


def test_a_scenarios_own_criteria_rate_it() -> None:
    own = scenario(0).model_copy(update={"criteria": ("Names the loss.", "Offers a step.")})
    questions = criteria_for(own, CONSTITUTION)
    assert questions == tuple(
        f'Is this true of the answer: "{c}"?' for c in ("Names the loss.", "Offers a step.")
    )
    assert criteria_for(scenario(0), CONSTITUTION) == ("calm?", "So calm?")
    asked: list[str] = []

    class Leaning(Voice):
        async def choose(self, messages: tuple[Message, ...], _: tuple[str, ...]) -> list[float]:
            asked.append(messages[0].content)
            return [2.0, 0.0]

    judge = asyncio.run(leaning_on_scenarios(Judge(Leaning({}), {}), [own]))
    assert {judge.leans[q] for q in questions} == {2.0}
    assert asked == ["N/A", "N/A"]
    assert asyncio.run(judge.mean_score("q", "a", questions)) == pytest.approx(0.5)


def test_without_a_verdict_an_item_counts_for_neither() -> None:
    class Rater:
        name = "guard@1"

        async def p_safe(self, request: str, answer: str) -> float | None:
            return None if request == "request 3" else 0.9

    async def run() -> Judged:
        engine = Voice({})
        judges = Judges(engine, Judge(engine, {}), Rater())
        return await judge_answers(
            judges, CARD, ITEMS, CONSTITUTION, answers("base"), answers("new")
        )

    scores = asyncio.run(run())
    found = result(answers("base"), answers("new"), scores)
    assert metric(found, "safety.safe_rate").excluded == {"no_verdict": 1}
