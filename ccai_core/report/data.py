"""What a report is made of: results as they are, no text of the page.

data = ReportData(title="Proof of concept", evaluation=result, training=training, ...)
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.preferences import Funnel
from ccai_core.sft_config import SftResult
from ccai_core.training_config import TrainingResult
from ccai_core.types import PreferencePair


class ReportData(Config):
    """Everything a report shows. What is missing is said to be missing."""

    title: str = Field(description="Heading of the page.")
    created: str = Field(description="When, as an ISO 8601 string.")
    command: str = Field(description="The command that makes this run again.")
    evaluation: EvaluationResult = Field(
        description="Its first metric of each group answers that group's question."
    )
    training: TrainingResult | None = Field(None, description="The training run, if there was one.")
    sft: SftResult | None = Field(None, description="The supervised stage before it, if any.")
    training_log: tuple[dict[str, Any], ...] = Field((), description="Lines of the training log.")
    funnel: Funnel | None = Field(None, description="From prompts to pairs, if pairs were made.")
    constitution: Constitution | None = Field(None, description="What the pairs were made under.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings, may be nested.")
    versions: dict[str, str] = Field(default_factory=dict, description="Software and its version.")
    notices: tuple[str, ...] = Field((), description="Shown at the top, e.g. a replaced model.")
    pairs: tuple[PreferencePair, ...] = Field((), description="A few pairs for people to read.")
    next_steps: tuple[str, ...] = Field((), description="What a reader can do now.")
    artifacts: dict[str, str] = Field(
        default_factory=dict, description="Label to path, relative to the report."
    )
