"""The settings of a release: what goes into it, whether it is whole, where it goes.

ReleaseBuildConfig(training=Path("training-3f2a"), evaluation=Path("evaluation-77c0"), pairs=...)
"""

from __future__ import annotations

from pathlib import Path

import tyro
from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import DEFAULT_CONSTITUTION
from ccai_core.release.card import Terms
from ccai_core.release.smoke import EngineName, SmokeConfig
from flows.config import TrackingUri


class ReleaseBuildConfig(Terms):
    """Settings of `python -m flows.release build`."""

    training: Path = Field(description="Folder of the training: artifacts/training-….")
    evaluation: Path = Field(description="Folder of its evaluation: artifacts/evaluation-….")
    pairs: Path = Field(description="Folder of the pairs it was trained on: artifacts/pairs-….")
    constitution: str = Field(
        DEFAULT_CONSTITUTION, description="Markdown file, or the name of a shipped constitution."
    )
    lock: Path = Field(
        Path("constraints.txt"), description="Exact versions of packages, to make it again with."
    )
    out: Path = Field(Path("release"), description="Folder that is made.")
    tracking_uri: TrackingUri = Field(
        None,
        description="MLflow server that knows the commands; unset: $MLFLOW_TRACKING_URI, else in "
        "the artifacts' workspace.",
    )


class ReleaseVerifyConfig(Config):
    """Settings of `python -m flows.release verify`."""

    folder: tyro.conf.Positional[Path] = Field(description="Folder of a release.")


class ReleaseSmokeConfig(SmokeConfig):
    """Settings of `python -m flows.release smoke`."""

    folder: tyro.conf.Positional[Path] = Field(description="Folder of a release.")
    engine: EngineName = Field("transformers", description="What loads it.")


class ReleasePushConfig(Config):
    """Settings of `python -m flows.release push`."""

    folder: tyro.conf.Positional[Path] = Field(description="Folder of a release.")
    to: str = Field(description="Repository on the hub, e.g. me/ccai-7b.")
    public: bool = Field(False, description="For everybody, not private.")
