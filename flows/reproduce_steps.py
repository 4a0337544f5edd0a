"""What a reproduction does: follow the recipe of a release, and compare the numbers.

found = follow_recipe(site, plan)
summary = reproduction_summary(site, config, plan, found)
"""

from __future__ import annotations

from datetime import UTC, datetime

from ccai_core.evaluation.results import EvaluationResult
from ccai_core.release.reproduction import Reproduction, compare_numbers
from ccai_core.sft_config import SftConfig
from flows.command import command_for
from flows.reproduce_config import ReproduceConfig
from flows.reproduce_plan import Plan
from flows.results import Summary
from flows.stages import evaluate_pair, make_preferences, refuse_leaking, sft_then_dpo
from tasks.models import find_model
from tasks.reproduction import publish_reproduction
from tasks.site import Site

_MOST_LISTED = 20


def follow_recipe(site: Site, plan: Plan) -> EvaluationResult:
    """Make pairs where that is asked, train, and evaluate, as the recipe says."""
    recipe, name = plan.recipe, plan.evaluation.model
    model = find_model(site, name, fallback=False)
    pairs = plan.pairs
    if plan.generation and plan.generated:
        writer = plan.generation.model
        by = model if writer == name else find_model(site, writer, fallback=False)
        pairs = make_preferences(site, plan.generation, plan.generated, by).path
    refuse_leaking(pairs, plan.evaluated)
    trained = sft_then_dpo(site, recipe.sft or SftConfig(), recipe.training, model, pairs).dpo
    same = plan.baseline == name
    baseline = model if same else find_model(site, plan.baseline, fallback=False)
    return evaluate_pair(site, plan.evaluation, plan.evaluated, baseline, trained.model, pairs)


def reproduction_summary(
    site: Site, config: ReproduceConfig, plan: Plan, found: EvaluationResult
) -> Summary:
    """Compare, write the report, and say what came out."""
    made = Reproduction(
        release=str(config.release),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_for("reproduce", config),
        numbers=compare_numbers(plan.released, found),
        notes=(*plan.notes, *found.notes),
    )
    files = publish_reproduction(site, made)
    off = [number for number in made.numbers if number.outcome != "reproduced"]
    lines = [f"{each.outcome}: {each.name}, {each.which}. {each.why}".rstrip() for each in off]
    more = [f"And {len(off) - _MOST_LISTED} more."] if len(off) > _MOST_LISTED else []
    return Summary(
        made={
            **{name: str(path) for name, path in files.items()},
            "tracking": site.tracking.shown_uri,
        },
        findings=(made.headline, *lines[:_MOST_LISTED], *more),
        notices=plan.notes,
        passed=made.passed,
    )
