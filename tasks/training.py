"""DPO training: reused, resumed or run, its metrics followed live into MLflow.

result = train_dpo(site, config, model, pairs)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ccai_core.dpo import train
from ccai_core.models import ModelRef
from ccai_core.records import artifacts_of
from ccai_core.training_config import LAYOUT, TrainingConfig, TrainingResult
from ccai_core.training_data import file_hash
from ccai_core.training_log import LogReader
from ccai_core.types import fingerprint
from infra.artifacts import Artifact
from infra.tracking import Run
from tasks.places import computing
from tasks.policy import retried_task
from tasks.progress import Progress
from tasks.site import Site
from tasks.steps import make, reused

logger = logging.getLogger(__name__)

# Words about a step, not measurements of it.
_NOT_METRICS = {"event", "step", "total_steps", "time", "model", "method", "device", "precision"}


@retried_task(name="train-dpo", task_run_name="train {model.name}")
def train_dpo(
    site: Site,
    config: TrainingConfig,
    model: ModelRef,
    pairs: Path,
) -> TrainingResult:
    """Train `model` on the pairs (or find the model that these very inputs made) and report it."""
    return trained(site, config, model, pairs)


def trained(
    site: Site,
    config: TrainingConfig,
    model: ModelRef,
    pairs: Path,
    *,
    step: str = "training",
    watch: Callable[[list[dict[str, Any]]], None] | None = None,
) -> TrainingResult:
    """Do what `train_dpo` does, within another task.

    `watch` is called at every look with the new lines of the training log, if any; what it raises
    ends the training. `step` is what its progress is called.
    """
    device = site.cluster.device
    inputs = {
        "model": model.identity,
        "pairs": file_hash(pairs),
        "device": device,
        "config": config.model_dump(mode="json", exclude=set(LAYOUT)),
    }
    artifact = Artifact(site.workspace.artifacts, "training", fingerprint(inputs))
    progress = Progress(site, step, unit="steps")
    # The fast way when all is there; `train` itself knows its finished folder.
    if not reused(artifact):
        tags = {"stage": "training", "artifact": artifact.name}
        with site.tracking.run("training", parent=site.run, tags=tags) as run:
            run.params({"model": model.identity, **config.model_dump(mode="json")})
            follower = Follower(artifact / "training_log.jsonl", run, progress, watch)
            result = make(
                site,
                artifact,
                inputs,
                train,
                (config, model, pairs, artifact.folder, device, site.workspace.reference),
                place=computing(site, "train", config.nodes, config.ranks),
                follow=follower.look,
                facts=lambda made: made.model_dump(mode="json"),
                parents=artifacts_of(pairs, model.path),
                leave_out=("checkpoints",),
            )
            _report(run, result, artifact.folder)
    result = TrainingResult.model_validate_json(
        (artifact / "training.json").read_text(encoding="utf-8")
    )
    progress.finish(f"{result.steps} steps, loss {result.train_loss:.4f}")
    # The workspace may have been moved since.
    here = result.model.model_copy(update={"path": artifact / "model"})
    return result.model_copy(update={"model": here, "model_path": here.path})


class Follower:
    """Carries new lines of the training log to MLflow and to whoever watches."""

    def __init__(
        self,
        log: Path,
        run: Run,
        progress: Progress,
        watch: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> None:
        self._reader, self._run, self._progress = LogReader(log), run, progress
        self._watch = watch
        self._at = (0, 1)

    def look(self, waits: str) -> None:
        """Report what is new; `waits` is what the job still waits for, if anything."""
        new = self._reader.new()
        for line in new:
            self._report(line)
        if self._watch is not None:
            self._watch(new)
        if waits:
            self._progress.update(*self._at, waits)

    def _report(self, line: dict[str, Any]) -> None:
        if line["event"] == "warning":
            logger.warning("Training, step %s: %s", line["step"], line["words"])
        if line["event"] == "reference":
            self._progress.update(0, 1, f"reference {line['done']} of {line['total']} pairs")
        if line["event"] not in {"step", "eval"}:
            return
        prefix = "validation" if line["event"] == "eval" else "train"
        time_ms = round(datetime.fromisoformat(line["time"]).timestamp() * 1000)
        self._run.metric_series(
            {
                f"{prefix}/{name}": [(line["step"], float(value), time_ms)]
                for name, value in line.items()
                if name not in _NOT_METRICS and isinstance(value, int | float)
            }
        )
        loss = line.get("loss")
        detail = f"loss {loss:.4f}" if loss is not None else ""
        self._at = int(line["step"]), int(line["total_steps"])
        self._progress.update(*self._at, detail)


def _report(run: Run, result: TrainingResult, folder: Path) -> None:
    numbers = result.model_dump(include={"steps", "seconds", "train_loss", "peak_memory_mb"})
    run.metrics({name: float(value) for name, value in numbers.items()})
    run.model(
        result.model.name,
        result.model_path,
        {"identity": result.model.identity, "base": result.base_model, "method": result.method},
    )
    run.artifact(folder / "training.json")
    run.artifact(folder / "training_curve.svg")
