"""Settings of `python -m flows.promote`.

PromoteConfig(evaluation=Path("runs/poc/artifacts/evaluation-3f2a"), to="champion")
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ccai_core.config import Config
from ccai_core.promotion import PromotionConfig, Rank
from flows.config import PLAIN, TrackingUri


class PromoteConfig(Config):
    """Which model, to what, and what its evaluation must show."""

    evaluation: Path | None = Field(
        None, description="Evaluation that speaks for the model: the artifact's folder."
    )
    trained: Path | None = Field(
        None, description="The model's folder; unset: as the evaluation's record says."
    )
    to: Rank = Field("champion", description="What it becomes.")
    workspace: Path = Field(
        Path("runs/poc"), description="Workspace whose MLflow store is used without a server."
    )
    tracking_uri: TrackingUri = Field(
        None, description="MLflow server; unset: $MLFLOW_TRACKING_URI, else in the workspace."
    )
    registered: str = Field("ccai", description="Name of the registered model in MLflow.")
    checks: Annotated[PromotionConfig, PLAIN] = Field(
        default=PromotionConfig(), description="What the evaluation must show."
    )
    override: str = Field(
        "", description="Promote in spite of checks that did not pass, for this reason; kept."
    )
    undo: bool = Field(False, description="Take back the last promotion instead.")
