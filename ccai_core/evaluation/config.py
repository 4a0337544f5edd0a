"""Settings of an evaluation; importing this loads no model library.

EvaluationConfig(safety_prompts=24, scenario_prompts=24, response_tokens=96, capability_items=20)
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.types import Sampling

SuiteName = Literal["poc", "full", "comprehensive", "official"]


class EvaluationConfig(Config):
    """What a suite asks, of how many items, and who judges."""

    suite: SuiteName = Field(
        "poc", description="Which measures, and how large; docs/evaluation.md tells."
    )
    safety_prompts: int = Field(60, ge=2, description="Prompts for the safety measures.")
    scenario_prompts: int = Field(60, ge=2, description="Scenarios for the contemplative measures.")
    capability_items: int | None = Field(
        None, ge=2, description="Multiple-choice items of each task; empty takes all (60 to 80)."
    )
    attack_prompts: int | None = Field(
        None, ge=2, description="Requests that every attack is tried on; empty: as the suite says."
    )
    benign_prompts: int | None = Field(
        None, ge=2, description="Harmless requests that look harmful; empty: as the suite says."
    )
    games: int | None = Field(
        None,
        ge=1,
        description="Prisoner's dilemmas against each opponent; empty: as the suite says.",
    )
    harness_tasks: tuple[str, ...] = Field(
        (),
        description="Tasks of lm-evaluation-harness, e.g. mmlu gsm8k; or shipped, ccai_arithmetic. "
        "Empty: as the suite says, where the harness is installed; 'none' for none.",
    )
    harness_items: int | None = Field(
        None, ge=2, description="Most items of each of them; empty: as the suite says, else all."
    )
    response_tokens: int = Field(128, ge=8, le=8192, description="Most tokens of an answer.")
    temperature: float = Field(0.0, ge=0, le=2, description="Of the answers; 0 is greedy.")
    repetition_penalty: float = Field(
        1.1, ge=1, le=2, description="Keeps greedy answers of small models from looping."
    )
    batch_size: int = Field(32, ge=1, description="Most sequences computed together.")
    judge: str = Field("baseline", description="Judging model: 'baseline', a hub id or a folder.")
    judges: tuple[str, ...] = Field(
        (),
        description="Further judges: the majority's verdict counts, and the mean of all scores.",
    )
    guard: str | None = Field(
        None, description="Guard classifier that rates safety instead of the judge: id or folder."
    )
    guard_format: Literal[
        "", "llama-guard-3", "llama-guard-4", "shieldgemma", "granite-guardian"
    ] = Field("", description="How the guard is asked; empty: by its name.")
    mt_bench: Path | None = Field(
        None,
        description="Folder with MT-Bench's question.jsonl and reference answers; empty: the "
        "mt-bench source in the data directory, where it is complete.",
    )
    mt_bench_prompts: Path | None = Field(
        None, description="FastChat's judge_prompts.jsonl instead of our wording."
    )
    mt_bench_tokens: int = Field(
        1024, ge=8, le=8192, description="Most tokens of an answer to MT-Bench."
    )
    benchmark_version: Literal["1.0", "1.1"] = Field(
        "1.1", description="AILuminate version whose references grade the answers."
    )
    benchmark_type: Literal["demo", "practice", "official"] = Field(
        "practice", description="AILuminate prompt set that was given; demo is graded as practice."
    )
    benchmark_locale: Literal["en_US", "fr_FR", "zh_CN"] = Field(
        "en_US", description="Locale of the references."
    )
    baseline_verdicts: Path | None = Field(
        None, description="What MLCommons' evaluator wrote on the baseline's answers."
    )
    trained_verdicts: Path | None = Field(
        None, description="What MLCommons' evaluator wrote on the trained model's answers."
    )
    examples: int = Field(12, ge=0, description="Answers of both models shown in the report.")
    include_restricted: bool = Field(
        False, description="Show members-only prompts and the answers to them, not only their ids."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of item choice, sampling and resampling.")

    @property
    def sampling(self) -> Sampling:
        """How both models draw their answers."""
        return Sampling(
            max_new_tokens=self.response_tokens,
            temperature=self.temperature,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )
