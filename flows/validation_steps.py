"""What a validation does: evaluate, decide the criteria, compare, and say what follows.

summary = validation_summary(site, config, validate(site, config, prepared))
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ccai_core.comparison.build import BuildConfig
from ccai_core.comparison.reading import read_results, refuse_unlike
from ccai_core.comparison.words import headline
from ccai_core.constitution import DEFAULT_CONSTITUTION
from ccai_core.evaluation.gate import Gate, gate_of
from ccai_core.records import read_record
from flows.command import command_for
from flows.reporting import evaluation_report
from flows.results import Summary
from flows.stages import evaluate_pair
from flows.validation_config import ValidationConfig
from flows.validation_plan import Prepared
from tasks.comparison import compare_results
from tasks.gate import publish_gate
from tasks.models import find_model
from tasks.report import publish_report
from tasks.site import Site

_REPORT = "validation.html"


class Validated(NamedTuple):
    """What came out."""

    gate: Gate
    evaluation: Path
    """The artifact that speaks for the model."""
    files: dict[str, Path]
    compared: tuple[str, ...]
    """What the comparison with other models says."""


def validate(site: Site, config: ValidationConfig, prepared: Prepared) -> Validated:
    """Measure both models, decide, and write what was found."""
    settings = config.model_copy(update={"evaluation": prepared.evaluation})
    baseline = find_model(site, config.model, config.fallback)
    trained = find_model(site, config.trained, fallback=False)
    sources = prepared.sources
    result = evaluate_pair(site, settings, sources, baseline, trained, config.pairs)
    artifact = (site.workspace.root / site.reported["evaluation"]).parent
    data = evaluation_report(site, settings, sources, baseline, result, flow="validation")
    data = data.model_copy(
        update={"title": "CCAI validation", "notices": (*prepared.labels, *data.notices)}
    )
    gate = gate_of(result, prepared.labels, str(artifact.relative_to(site.workspace.root)))
    files = {"report": publish_report(site, data, _REPORT), **publish_gate(site, gate)}
    compared: tuple[str, ...] = ()
    if config.against:
        given = read_results([artifact, *config.against])
        refuse_unlike(given, unjudged=False)
        command = command_for("validation", config)
        found = compare_results(site, given, BuildConfig(), command, config.tracking_uri)
        files["comparison"] = found.files["page"]
        compared = headline(found.comparison)
    return Validated(gate, artifact, files, compared)


def validation_summary(site: Site, config: ValidationConfig, found: Validated) -> Summary:
    """Say whether the gate is passed, by what, and what may be done now."""
    return Summary(
        made={
            **{name: str(path) for name, path in found.files.items()},
            "evaluation": str(found.evaluation),
            "tracking": site.tracking.shown_uri,
        },
        findings=(
            found.gate.headline,
            *(f"{each.verdict}: {each.criterion}. {each.why}" for each in found.gate.criteria),
            *found.compared,
        ),
        notices=found.gate.labels,
        next_commands=tuple(_next(config, found)),
        passed=found.gate.passed,
    )


def _next(config: ValidationConfig, found: Validated) -> Iterator[str]:
    evaluation = ["--evaluation", str(found.evaluation)]
    yield _command("promote", *evaluation, "--trained", config.trained, "--dry-run")
    training = Path(config.trained).parent
    if read_record(training) and config.pairs:
        made_from = ["--training", str(training), "--pairs", str(config.pairs)]
        other = config.constitution != DEFAULT_CONSTITUTION
        constitution = ["--constitution", config.constitution] if other else []
        terms = ["--name", "NAME", "--licence", "LICENCE", "--dry-run"]
        yield _command("release", "build", *evaluation, *made_from, *constitution, *terms)


def _command(flow: str, *words: str) -> str:
    return shlex.join(["python", "-m", f"flows.{flow}", *words])
