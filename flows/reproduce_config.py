"""The settings of a reproduction: which release, and what it holds only by name.

ReproduceConfig(release=Path("release"), prompts=("practice.csv",))
"""

from __future__ import annotations

from pathlib import Path

import tyro
from pydantic import Field

from flows.config import RunConfig


class ReproduceConfig(RunConfig):
    """Settings of `python -m flows.reproduce`."""

    release: tyro.conf.Positional[Path] = Field(description="Folder of the release.")
    workspace: Path = Field(
        Path("runs/reproduction"),
        description="Folder for everything that is made; run again to go on.",
    )
    model: str = Field(
        "", description="The base model, where the hub does not have it: its folder."
    )
    baseline: str = Field(
        "", description="The model that is compared with, where it is another: its folder."
    )
    judge: str = Field("", description="The judge, where the hub does not have it: its folder.")
    guard: str = Field("", description="The guard, where the hub does not have it: its folder.")
    prompts: tuple[str, ...] = Field(
        (), description="Prompt files that the release names and does not hold."
    )
    pairs: Path | None = Field(
        None, description="The pairs, where the release has some as ids only: the folder pairs-…."
    )
    generate: bool = Field(
        False, description="Generate the pairs again, too, although the release has them."
    )
    mt_bench: Path | None = Field(
        None, description="Folder of MT-Bench's files; unset: those in the data directory."
    )
    baseline_verdicts: Path | None = Field(
        None, description="What MLCommons' evaluator wrote on the baseline's answers, if it did."
    )
    trained_verdicts: Path | None = Field(
        None, description="What MLCommons' evaluator wrote on the answers of the model made again."
    )
