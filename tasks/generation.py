"""Preference pairs: reused, resumed or made, with progress and a funnel for people to see.

pairs = generate_preferences(site, request)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ccai_core.dataset_files import FUNNEL_FILE, REJECTED_FILE
from ccai_core.dataset_info import read_info
from ccai_core.generation import PairRequest, check_prompts, generate_pairs
from ccai_core.preferences import Funnel
from ccai_core.progress import read_progress
from ccai_core.types import fingerprint
from infra.artifacts import Artifact
from tasks.generation_view import GenerationView
from tasks.places import asking
from tasks.policy import retried_task
from tasks.progress import Progress
from tasks.shown import show_table
from tasks.site import Site
from tasks.steps import make, reused


@dataclass(frozen=True)
class Pairs:
    """A finished preference data set."""

    artifact: str
    path: Path
    """Its folder."""
    rejected: Path
    funnel: Funnel


@retried_task(name="generate-preferences", task_run_name="generate {request.max_pairs} pairs")
def generate_preferences(site: Site, request: PairRequest) -> Pairs:
    """Make (or find) the data set that `request` describes and report it."""
    check_prompts(request)
    inputs = request.inputs
    artifact = Artifact(site.workspace.artifacts, "pairs", fingerprint(inputs))
    progress = Progress(site, "preference pairs", unit="pairs")
    if not reused(artifact):
        tags = {
            "stage": "generation",
            "artifact": artifact.name,
            "model": request.model.identity,
            "cluster": site.cluster.name,
        }
        with site.tracking.run("generation", parent=site.run, tags=tags) as run:
            run.params(inputs)
            view = GenerationView(progress, run, request.max_pairs)
            place = asking(site, "evaluate")
            journal = site.workspace.journal / "calls.jsonl"
            funnel = make(
                site,
                artifact,
                inputs,
                generate_pairs,
                (request, artifact.folder, journal, place.engines),
                place=place,
                follow=lambda waits: view.look(read_progress(artifact / "progress.json"), waits),
                facts=lambda made: made.model_dump(),
                parents=request.parents,
            )
            run.metrics({k: v for k, v in funnel.model_dump().items() if isinstance(v, int)})
            run.artifact(artifact / FUNNEL_FILE)
            run.artifact(artifact / "README.md")
    funnel = Funnel.model_validate_json((artifact / FUNNEL_FILE).read_text(encoding="utf-8"))
    progress.finish(f"{funnel.pairs} pairs")
    rows = {str(split): count for split, count in read_info(artifact.folder).rows.items()}
    site.run.dataset(
        "preference-pairs", artifact.fingerprint, str(artifact.folder), "training", funnel.pairs,
        counts={**rows, **funnel.per_principle},
    )  # fmt: skip
    show_table(
        [{"what": name, "candidates": count} for name, count in funnel.steps()],
        key="funnel",
        description=f"From {funnel.candidates} candidates to {funnel.pairs} pairs",
    )
    return Pairs(artifact.name, artifact.folder, artifact / REJECTED_FILE, funnel)
