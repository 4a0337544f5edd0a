"""The settings of a paper: which results it is about, and what no result says.

PaperConfig(workspace=Path("runs/poc"), comparison=Path("runs/comparison"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import DEFAULT_CONSTITUTION
from ccai_core.paper.draft import About
from flows.config import PLAIN


class PaperConfig(Config):
    """Settings of `python -m flows.paper`."""

    workspace: Path = Field(
        Path("runs/poc"), description="Workspace whose results the paper is about."
    )
    evaluation: Path | None = Field(
        None, description="Folder artifacts/evaluation-…; unset: the workspace's newest."
    )
    comparison: Path | None = Field(
        None, description="Folder that flows.compare wrote into, if other models are compared."
    )
    review: Path | None = Field(
        None, description="Folder that flows.human_evaluation collect wrote into, or its JSON."
    )
    constitution: str = Field(
        DEFAULT_CONSTITUTION,
        description="The one that was used: a file or a shipped name; another is not described.",
    )
    about: Annotated[About, PLAIN] = Field(default=About(), description="What no result says.")
    out: Path = Field(Path("runs/paper"), description="Folder for the paper and its pictures.")
    pandoc: bool = Field(True, description="Make LaTeX and PDF too, where pandoc is installed.")
    tracking_uri: str | None = Field(
        None,
        description="MLflow server; unset: $MLFLOW_TRACKING_URI, else in the workspaces.",
    )
    experiment: str = Field("ccai", description="MLflow experiment.")
