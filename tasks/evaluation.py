"""Evaluation of a trained model against its baseline: reused, resumed or run, and reported.

result = evaluate_models(site, request)
"""

from __future__ import annotations

from ccai_core.evaluation.results import EvaluationResult, Metric
from ccai_core.evaluation.run import (
    LOGS_FOLDER,
    RESULT_FILE,
    EvaluationRequest,
    evaluate,
)
from ccai_core.progress import read_progress
from ccai_core.records import artifacts_of
from ccai_core.types import fingerprint
from infra.artifacts import Artifact
from infra.tracking import Run
from tasks.places import asking
from tasks.policy import retried_task
from tasks.progress import Progress
from tasks.shown import show_table
from tasks.site import Site
from tasks.steps import make, reused


@retried_task(name="evaluate-models", task_run_name="evaluate {request.trained.name}")
def evaluate_models(site: Site, request: EvaluationRequest) -> EvaluationResult:
    """Evaluate (or find the evaluation of these very inputs) and report it."""
    inputs = request.inputs
    artifact = Artifact(site.workspace.artifacts, "evaluation", fingerprint(inputs))
    progress = Progress(site, "evaluation", unit="calls")
    if not reused(artifact):
        tags = {"stage": "evaluation", "artifact": artifact.name}
        with site.tracking.run("evaluation", parent=site.run, tags=tags) as run:
            run.params(inputs)

            place = asking(site, "evaluate")

            def follow(waits: str) -> None:
                at = read_progress(artifact / "progress.json") or {}
                done, total = int(at.get("done", 0)), int(at.get("total", 1))
                progress.update(done, total, str(at.get("stage", "")), waits)

            journal = site.workspace.journal / "evaluation.jsonl"
            result = make(
                site,
                artifact,
                inputs,
                evaluate,
                (request, artifact.folder, journal, place.engines),
                place=place,
                follow=follow,
                facts=lambda made: {
                    metric.id: metric.difference.estimate for metric in made.metrics
                },
                parents=artifacts_of(request.pairs, request.baseline.path, request.trained.path),
            )
            _report(run, result)
            run.artifact(artifact / RESULT_FILE)
    result = EvaluationResult.model_validate_json(
        (artifact / RESULT_FILE).read_text(encoding="utf-8")
    )
    progress.finish(f"{len(result.metrics)} measures")
    for label, name in (("evaluation", RESULT_FILE), ("logs for `inspect view`", LOGS_FOLDER)):
        site.reported[label] = str((artifact / name).relative_to(site.workspace.root))
    show_table(
        [_row(metric) for metric in result.metrics],
        key="evaluation",
        description=f"{result.trained_model} against {result.baseline_model}, 95% intervals",
    )
    return result


def _report(run: Run, result: EvaluationResult) -> None:
    values: dict[str, float] = {}
    for metric in result.metrics:
        for name in ("baseline", "trained", "difference"):
            interval = getattr(metric, name)
            values[f"{metric.id}/{name}"] = interval.estimate
            values[f"{metric.id}/{name}_low"] = interval.low
            values[f"{metric.id}/{name}_high"] = interval.high
        values[f"{metric.id}/n"] = float(metric.n)
    run.metrics(values)
    run.tags({"judge": result.judge.model, "judge.weak": str(result.judge.weak)})


def _row(metric: Metric) -> dict[str, str | int]:
    change = metric.difference
    return {
        "measure": metric.title,
        "baseline": f"{metric.baseline.estimate:.3f}",
        "trained": f"{metric.trained.estimate:.3f}",
        "difference": f"{change.estimate:+.3f} [{change.low:+.3f}, {change.high:+.3f}]",
        "n": metric.n,
    }
