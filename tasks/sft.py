"""The supervised stage before DPO: reused, resumed or run, its metrics followed live into MLflow.

result = fine_tune_model(site, config, model, pairs)
"""

from __future__ import annotations

from pathlib import Path

from ccai_core.models import ModelRef
from ccai_core.records import artifacts_of
from ccai_core.sft import fine_tune
from ccai_core.sft_config import SftConfig, SftResult
from ccai_core.training_config import LAYOUT
from ccai_core.training_data import file_hash
from ccai_core.types import fingerprint
from infra.artifacts import Artifact
from infra.tracking import Run
from tasks.places import computing
from tasks.policy import retried_task
from tasks.progress import Progress
from tasks.site import Site
from tasks.steps import make, reused
from tasks.training import Follower


@retried_task(name="fine-tune", task_run_name="fine-tune {model.name}")
def fine_tune_model(
    site: Site,
    config: SftConfig,
    model: ModelRef,
    pairs: Path,
) -> SftResult:
    """Train `model` on the chosen answers (or find what these very inputs made) and report it."""
    device = site.cluster.device
    inputs = {
        "model": model.identity,
        "pairs": file_hash(pairs),
        "device": device,
        "config": config.model_dump(mode="json", exclude=set(LAYOUT)),
    }
    artifact = Artifact(site.workspace.artifacts, "sft", fingerprint(inputs))
    progress = Progress(site, "supervised", unit="steps")
    # The fast way when all is there; `fine_tune` itself knows its finished folder.
    if not reused(artifact):
        tags = {"stage": "sft", "artifact": artifact.name}
        with site.tracking.run("sft", parent=site.run, tags=tags) as run:
            run.params({"model": model.identity, **config.model_dump(mode="json")})
            follower = Follower(artifact / "training_log.jsonl", run, progress)
            result = make(
                site,
                artifact,
                inputs,
                fine_tune,
                (config, model, pairs, artifact.folder, device),
                place=computing(site, "train", config.nodes, config.ranks),
                follow=follower.look,
                facts=lambda made: made.model_dump(mode="json"),
                parents=artifacts_of(pairs, model.path),
                leave_out=("checkpoints",),
            )
            _report(run, result, artifact.folder)
    result = SftResult.model_validate_json((artifact / "training.json").read_text(encoding="utf-8"))
    progress.finish(f"{result.steps} steps, loss {result.train_loss:.4f}")
    # The workspace may have been moved since.
    here = result.model.model_copy(update={"path": artifact / "model"})
    return result.model_copy(update={"model": here, "model_path": here.path})


def _report(run: Run, result: SftResult, folder: Path) -> None:
    numbers = result.model_dump(include={"steps", "seconds", "train_loss", "peak_memory_mb"})
    run.metrics({name: float(value) for name, value in numbers.items()})
    run.artifact(folder / "training.json")
    run.artifact(folder / "training_curve.svg")
