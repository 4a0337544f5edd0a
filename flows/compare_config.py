"""The settings of a comparison: which evaluations, and what no evaluation knows.

CompareConfig(results=(Path("runs/a/artifacts/evaluation-3f2a"), Path("b.json")))
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from ccai_core.comparison.build import BuildConfig
from flows.config import PLAIN, RunConfig


class CompareConfig(RunConfig):
    """Settings of `python -m flows.compare`."""

    results: tyro.conf.Positional[tuple[Path, ...]] = Field(
        (), description="Evaluations: folders artifacts/evaluation-…, or their JSON files."
    )
    workspace: Path = Field(
        Path("runs/comparison"), description="Folder for the page, the data and the pictures."
    )
    compare: Annotated[BuildConfig, PLAIN] = Field(
        default=BuildConfig(), description="How they are compared."
    )
