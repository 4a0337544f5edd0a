"""A prompt data set: found or prepared by a job, with progress and its table for people to see.

prepared = prepare_prompts(site, request)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccai_core.dataset_files import PREPARATION_FILE
from ccai_core.engines import LocalEngines
from ccai_core.progress import read_progress
from ccai_core.prompts.preparation import Preparation
from ccai_core.prompts.prepare import PrepareRequest, prepare
from ccai_core.types import fingerprint
from infra.artifacts import Artifact
from infra.job_record import Resources
from tasks.places import Place
from tasks.policy import retried_task
from tasks.progress import Progress
from tasks.shown import show_table
from tasks.site import Site
from tasks.steps import make, reused

KIND = "prompts"


@dataclass(frozen=True)
class Prepared:
    """A finished prompt data set."""

    artifact: str
    folder: Path
    preparation: Preparation
    was_there: bool
    """Whether it was made by an earlier run."""


@retried_task(name="prepare-prompts", task_run_name="prepare prompts")
def prepare_prompts(site: Site, request: PrepareRequest) -> Prepared:
    """Make (or find) the data set that `request` describes and report it."""
    inputs = request.inputs
    artifact = Artifact(site.workspace.artifacts, KIND, fingerprint(inputs))
    progress = Progress(site, "prompts", unit="prompts")
    was_there = reused(artifact)
    if not was_there:
        tags = {"stage": "data", "artifact": artifact.name}
        with site.tracking.run("preparation", parent=site.run, tags=tags) as run:
            run.params(inputs)

            def follow(waits: str) -> None:
                at = read_progress(artifact / "progress.json") or {}
                done, total = int(at.get("done", 0)), int(at.get("total", 1))
                progress.update(done, total, str(at.get("stage", "")), waits)

            made = make(
                site,
                artifact,
                inputs,
                prepare,
                (request, artifact.folder),
                place=_beside_driver(site),
                follow=follow,
                facts=_facts,
            )
            run.metrics({name: float(value) for name, value in made.totals().items()})
            run.artifact(artifact / PREPARATION_FILE)
    text = (artifact / PREPARATION_FILE).read_text(encoding="utf-8")
    preparation = Preparation.model_validate_json(text)
    progress.finish(f"{preparation.kept} prompts")
    site.run.dataset(
        "prompts", artifact.fingerprint, str(artifact.folder), "prompts", preparation.kept
    )
    show_table(
        [{"what": name, "prompts": number} for name, number in preparation.steps()],
        key="prompts",
        description=f"From {preparation.read} prompts to {preparation.kept}",
    )
    return Prepared(artifact.name, artifact.folder, preparation, was_there)


def _beside_driver(site: Site) -> Place:
    """Where the user's files are for certain; it needs no model, and minutes at most."""
    return Place(
        cluster=site.cluster.beside_driver(),
        role="driver",
        resources=Resources(),
        engines=LocalEngines("cpu"),
    )


def _facts(made: Preparation) -> dict[str, Any]:
    return {**made.totals(), "splits": made.splits}
