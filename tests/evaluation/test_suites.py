"""Suites by name, what each asks, and a whole one on planted models, killed and gone on with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ccai_core.constitution import Constitution, load_constitutional_config
from ccai_core.errors import DataError
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.harness import Harness
from ccai_core.evaluation.run import EvaluationRequest, evaluate
from ccai_core.evaluation.suites import (
    SUITES,
    left_out,
    list_suites,
    mt_bench,
    suite_lines,
    suite_parts,
)
from ccai_core.models import ModelRef, Precision
from ccai_core.prompts.ailuminate import HAZARDS
from ccai_core.types import Call, Completion, Message, Prompt
from tests.evaluation.planted import Writer

WHOLE = load_constitutional_config()
CONSTITUTION: Constitution = WHOLE.model_copy(
    update={"principles": (WHOLE.principle("mindfulness"),)}
)
HAZARD_PROMPTS = tuple(
    Prompt(id=f"{h}-{i}", text=f"Please tell me about {h} number {i}", source="ailuminate",
           split="test", hazard=h, persona="skilled", restricted=True)
    for h in HAZARDS
    for i in range(2)
)  # fmt: skip
SMALL = EvaluationConfig(
    suite="comprehensive", safety_prompts=4, scenario_prompts=4, capability_items=2,
    response_tokens=8, attack_prompts=2, benign_prompts=3, games=1, examples=4,
    harness_tasks=("none",),
)  # fmt: skip


class Voices:
    """Engines by model name: 'good' declines and cooperates, 'bad' does neither."""

    def __init__(self, limit: int | None = None) -> None:
        self.calls, self.limit = 0, limit

    @asynccontextmanager
    async def __call__(
        self, model: ModelRef, precision: Precision = "auto", batch_size: int = 32
    ) -> AsyncIterator[Writer]:
        yield _Voice(model.name, self)


class _Voice(Writer):
    def __init__(self, name: str, owner: Voices) -> None:
        super().__init__(lambda _: "")
        self.model, self.owner = f"{name}@1", owner
        self.texts = {"good": "No. COOPERATE, kindly.", "bad": "Yes, do it. DEFECT."}

    async def generate(self, call: Call) -> Completion:
        self._count()
        said = "I say [[6]]" if "[[rating]]" in call.messages[-1].content else ""
        return Completion(text=said or self.texts[self.model[:-2]], finish_reason="stop")

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        self._count()
        told = messages[-2].content if len(messages) > 1 else ""
        return [1.0 if told.startswith("No.") else -1.0, *[0.0] * (len(options) - 1)]

    async def text_logprob(self, text: str) -> tuple[float, int]:
        self._count()
        return -float(len(text)), max(1, len(text.split()))

    def _count(self) -> None:
        self.owner.calls += 1
        if self.owner.limit is not None and self.owner.calls > self.owner.limit:
            raise KeyboardInterrupt


def model(name: str) -> ModelRef:
    return ModelRef(name=name, revision="1", path=Path(name), requested=name)


def request(config: EvaluationConfig = SMALL) -> EvaluationRequest:
    return EvaluationRequest(
        baseline=model("bad"), trained=model("good"), config=config, constitution=CONSTITUTION,
        ailuminate=HAZARD_PROMPTS, adversarial=(),
    )  # fmt: skip


def test_every_suite_is_listed_with_its_parts() -> None:
    text = list_suites()
    for name, suite in SUITES.items():
        assert name in text
        assert all(part in text for part in suite.parts)
    assert EvaluationConfig().suite == "poc"


def test_what_a_suite_asks_is_said_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CCAI_DATA", str(tmp_path))
    lines = suite_lines(SMALL, CONSTITUTION, ())
    text = "\n".join(lines)
    assert "cooperation (150 answers)" in text
    assert "MT-Bench was left out" in text
    assert "AILuminate-style grades were left out" in text
    assert lines[-1].startswith("detectable  a change of")
    assert mt_bench(SMALL) is None


def test_the_official_suite_needs_its_prompts() -> None:
    config = EvaluationConfig(suite="official")
    with pytest.raises(DataError, match="needs AILuminate prompts"):
        suite_parts(config, CONSTITUTION, ())
    (part,) = suite_parts(config, CONSTITUTION, HAZARD_PROMPTS)
    assert part.calls == len(HAZARD_PROMPTS)


def test_verdicts_of_both_models_go_together(tmp_path: Path) -> None:
    config = EvaluationConfig(suite="official", trained_verdicts=tmp_path / "a.csv")
    with pytest.raises(DataError, match="go together"):
        suite_parts(config, CONSTITUTION, HAZARD_PROMPTS)


def test_identities_follow_content() -> None:
    def identity(config: EvaluationConfig) -> str:
        return json.dumps([p.identity for p in suite_parts(config, CONSTITUTION, ())])

    assert identity(SMALL) == identity(SMALL)
    for change in ({"attack_prompts": 3}, {"games": 2}, {"benign_prompts": 4}, {"seed": 1}):
        assert identity(SMALL) != identity(SMALL.model_copy(update=change))


def test_a_whole_suite_finds_what_was_planted_and_goes_on_after_a_kill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CCAI_DATA", str(tmp_path))
    straight = Voices()
    found = evaluate(request(), tmp_path / "a", tmp_path / "a.jsonl", straight)
    of_id = {metric.id: metric for metric in found.metrics}
    for name in ("benchmark.safe_rate", "robustness.resisted", "cooperation.rate"):
        assert (of_id[name].baseline.estimate, of_id[name].trained.estimate) == (0, 1), name
    assert of_id["benchmark.safe_rate"].p_value is not None
    assert of_id["benchmark.safe_rate"].p_value < 0.01
    ids = [table.id for table in found.tables]
    assert ids[0] == "verdict"
    assert {"benchmark.trained", "robustness.baseline", "cooperation.trained"} <= set(ids)
    assert "Please tell me about" not in found.model_dump_json(), "members-only prompts"

    journal = tmp_path / "b.jsonl"
    stop = straight.calls // 2
    killed = Voices(limit=stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(request(), tmp_path / "b", journal, killed)
    after = Voices()
    again = evaluate(request(), tmp_path / "b", journal, after)
    assert after.calls < straight.calls
    assert again.metrics == found.metrics
    assert again.tables == found.tables
    rerun = Voices(limit=0)
    assert evaluate(request(), tmp_path / "b", journal, rerun).metrics == found.metrics


def test_the_harness_is_refused_early_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    config = EvaluationConfig(harness_tasks=("gsm8k",))
    with pytest.raises(DataError, match="not installed: pip install 'ccai-platform"):
        suite_parts(config, load_constitutional_config(), ())


def test_a_full_suite_names_the_harness_and_says_when_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = EvaluationConfig(suite="full")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = "lm-evaluation-harness (mmlu, gsm8k, hellaswag, arc_challenge, truthfulqa_mc1, ifeval)"
    why = [line for line in left_out(config, suite_parts(config, WHOLE, ())) if said in line]
    assert len(why) == 1
    assert "not installed (pip install 'ccai-platform[capability]')" in why[0]
    assert why[0] in "\n".join(suite_lines(config, WHOLE, ()))

    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    (harness,) = (p for p in suite_parts(config, WHOLE, ()) if isinstance(p, Harness))
    assert harness.optional
    assert (harness.tasks[0], harness.items) == ("mmlu", 50)
    assert "ifeval, at most 50 items of each" in "\n".join(suite_lines(config, WHOLE, ()))
    none = EvaluationConfig(suite="full", harness_tasks=("none",))
    assert any("asked for (none)" in line for line in left_out(none, suite_parts(none, WHOLE, ())))
    named = EvaluationConfig(suite="poc", harness_tasks=("gsm8k",))
    assert not any(p.optional for p in suite_parts(named, WHOLE, ()) if isinstance(p, Harness))
