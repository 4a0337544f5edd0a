"""From the results of a flow to its report and its closing words.

data = poc_report(site, config, sources, model, pairs, training, evaluation)
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

from ccai_core.embedded import EMBEDDED_NAMES
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.models import ModelRef
from ccai_core.report import ReportData, headlines
from ccai_core.sft_config import SftResult
from ccai_core.training_config import TrainingResult
from ccai_core.training_data import read_pairs
from ccai_core.training_log import read_log
from flows.command import carried_over, command_for
from flows.config import (
    EvaluationFlowConfig,
    PoCConfig,
    PreferenceDataConfig,
    SourceConfig,
    TrainingFlowConfig,
)
from flows.inputs import AILUMINATE_DEMO, Sources
from flows.results import Summary
from flows.stages import Trained
from infra.provenance import code_version, versions
from tasks.generation import Pairs
from tasks.site import Site
from tasks.steps import relative

_PAIRS_SHOWN = 6


def poc_report(
    site: Site,
    config: PoCConfig,
    sources: Sources,
    model: ModelRef,
    pairs: Pairs,
    trained: Trained,
    evaluation: EvaluationResult,
) -> ReportData:
    """Gather what the report of a PoC shows."""
    training, sft = trained
    root = site.workspace.root
    log = training.model_path.parent / "training_log.jsonl"
    made = {
        "preference pairs": pairs.path,
        "rejected candidates": pairs.rejected,
        **({"fine-tuned model": sft.model_path} if sft else {}),
        "trained model": training.model_path,
        "training log": log,
    }
    every = read_pairs(pairs.path)
    return _report(config, "poc", sources, model, evaluation).model_copy(
        update={
            "title": "CCAI proof of concept",
            "training": training,
            "sft": sft,
            "training_log": tuple(read_log(log)),
            "funnel": pairs.funnel,
            "pairs": tuple(every[:: max(1, len(every) // _PAIRS_SHOWN)][:_PAIRS_SHOWN]),
            "next_steps": _after_poc(site, config, model, pairs, training),
            "artifacts": {label: relative(path, root) for label, path in made.items()},
        }
    )


def evaluation_report(
    site: Site,
    config: EvaluationFlowConfig,
    sources: Sources,
    model: ModelRef,
    evaluation: EvaluationResult,
    flow: str = "evaluation",
) -> ReportData:
    """Gather what the report of an evaluation alone shows; `flow` is whose it is."""
    return _report(config, flow, sources, model, evaluation).model_copy(
        update={"next_steps": (_mlflow(site),)}
    )


def _report(
    config: SourceConfig,
    flow: str,
    sources: Sources,
    model: ModelRef,
    evaluation: EvaluationResult,
) -> ReportData:
    return ReportData(
        title="CCAI evaluation",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_for(flow, config),
        evaluation=evaluation,
        constitution=sources.constitution,
        settings=config.model_dump(mode="json"),
        versions={"code": code_version(), **versions()},
        notices=tuple(filter(None, [model.notice])),
    )


def poc_summary(
    site: Site, data: ReportData, report: Path, pairs: Pairs, training: TrainingResult
) -> Summary:
    """Say at the end of a PoC what was made and what was found."""
    return Summary(
        made={
            "report": str(report),
            "model": str(training.model_path),
            "pairs": f"{pairs.path} ({pairs.funnel.pairs})",
            "tracking": site.tracking.shown_uri,
        },
        findings=(*_shortfall(pairs), *headlines(data)),
        notices=data.notices,
        next_commands=data.next_steps,
    )


def preferences_summary(config: PreferenceDataConfig, model: ModelRef, pairs: Pairs) -> Summary:
    """Say what a preference data set holds and what to do with it."""
    funnel = pairs.funnel
    top = sorted(funnel.rejected.items(), key=lambda item: -item[1])[:3]
    reasons = ", ".join(f"{count} {reason}" for reason, count in top)
    return Summary(
        made={"pairs": str(pairs.path), "rejected": str(pairs.rejected)},
        findings=(
            f"{funnel.pairs} pairs of {funnel.candidates} candidates: {funnel.per_principle}.",
            *([f"Most rejected: {reasons}."] if reasons else []),
            *_shortfall(pairs),
        ),
        notices=tuple(filter(None, [model.notice])),
        next_commands=(
            command_for("training", carried_over(config, TrainingFlowConfig, pairs=pairs.path)),
        ),
    )


def training_summary(config: TrainingFlowConfig, model: ModelRef, trained: Trained) -> Summary:
    """Say what a training run made and how it went on held-out pairs."""
    result, sft = trained
    before, after = result.validation_before, result.validation_after
    measured = (
        f"Held-out pairs ({after.n}): margin {before.margin:+.4f} to {after.margin:+.4f}, "
        f"accuracy {after.accuracy:.0%}."
        if before and after
        else "No pairs were held out, so nothing says whether it learned."
    )
    curve = result.model_path.parent / "training_curve.svg"
    return Summary(
        made={"model": str(result.model_path), "curve": str(curve)},
        findings=(
            *([_supervised(sft)] if sft else []),
            f"{result.steps} updates, loss {result.train_loss:.4f}; the model is that of update "
            f"{result.model_step}.",
            measured,
            result.verdict,
        ),
        notices=tuple(filter(None, [model.notice])),
        next_commands=(
            command_for(
                "evaluation",
                carried_over(config, EvaluationFlowConfig, trained=str(result.model_path)),
            ),
        ),
    )


def _supervised(result: SftResult) -> str:
    before, after = result.validation_before, result.validation_after
    measured = (
        f"; on {after.n} held-out ones {before.loss:.3f} to {after.loss:.3f} nats a token"
        if before and after
        else ""
    )
    return f"First {result.steps} updates on {result.pairs_train} chosen answers{measured}."


def evaluation_summary(site: Site, data: ReportData, report: Path) -> Summary:
    """Say what an evaluation found."""
    return Summary(
        made={"report": str(report), "tracking": site.tracking.shown_uri},
        findings=tuple(headlines(data)),
        notices=data.notices,
        next_commands=data.next_steps,
    )


def _shortfall(pairs: Pairs) -> list[str]:
    missing = pairs.funnel.shortfall
    if not missing:
        return []
    return [
        f"{missing} pairs fewer than asked for: the prompts are used up. Give more with --prompts, "
        "or raise --max-passes."
    ]


def _after_poc(
    site: Site, config: PoCConfig, model: ModelRef, pairs: Pairs, training: TrainingResult
) -> tuple[str, ...]:
    again = config.model_copy(
        update={
            "model": EMBEDDED_NAMES[1] if model.substituted else config.model,
            "max_pairs": 2 * config.max_pairs,
        }
    )
    harder = carried_over(
        again,
        EvaluationFlowConfig,
        trained=str(training.model_path),
        pairs=pairs.path,
        prompts=tuple(dict.fromkeys([*config.prompts, AILUMINATE_DEMO])),
    )
    return _mlflow(site), command_for("poc", again), command_for("evaluation", harder)


def _mlflow(site: Site) -> str:
    return f"mlflow ui --backend-store-uri {shlex.quote(site.tracking.shown_uri)}"
