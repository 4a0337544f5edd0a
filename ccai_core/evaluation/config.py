"""Settings of an evaluation; importing this loads no model library.

EvaluationConfig(safety_prompts=24, scenario_prompts=24, response_tokens=96, capability_items=20)
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.types import Sampling


class EvaluationConfig(Config):
    """What the poc suite asks, of how many items, and who judges."""

    suite: Literal["poc"] = Field("poc", description="Baseline against trained on one machine.")
    safety_prompts: int = Field(60, ge=2, description="Prompts for the safety measures.")
    scenario_prompts: int = Field(60, ge=2, description="Scenarios for the contemplative measures.")
    capability_items: int | None = Field(
        None, ge=2, description="Multiple-choice items of each task; empty takes all (60 to 80)."
    )
    response_tokens: int = Field(128, ge=8, le=8192, description="Most tokens of an answer.")
    temperature: float = Field(0.0, ge=0, le=2, description="Of the answers; 0 is greedy.")
    repetition_penalty: float = Field(
        1.1, ge=1, le=2, description="Keeps greedy answers of small models from looping."
    )
    batch_size: int = Field(32, ge=1, description="Most sequences computed together.")
    judge: str = Field("baseline", description="Judging model: 'baseline', a hub id or a folder.")
    examples: int = Field(12, ge=0, description="Answers of both models shown in the report.")
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
