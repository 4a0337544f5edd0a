"""What the two commands of an expert review do: make the package, and read what comes back.

summary = build_review(BuildReviewConfig(answers=(Path("evaluation.json"),)))
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ccai_core.errors import ConfigError, DataError
from ccai_core.evaluation.items import texts_trained_on
from ccai_core.files import write_whole
from ccai_core.human_evaluation import (
    HumanEvaluation,
    ReviewKey,
    ReviewPrompt,
    build_package,
    collect_reviews,
    evaluate_reviews,
    read_answers,
    read_key,
)
from ccai_core.human_evaluation.answers import naming_themselves
from ccai_core.human_evaluation.design import units_of
from ccai_core.human_evaluation.report import headline, render_html, render_markdown
from ccai_core.prompts.leaks import refuse_leaks
from ccai_core.types import Prompt
from flows.command import command_for
from flows.human_evaluation_config import (
    KEY_FILE,
    PACKAGE_FILE,
    BuildReviewConfig,
    CollectReviewConfig,
)
from flows.results import Summary
from infra.origin import content_name
from infra.tracking import Tracking

_REPORT, _MARKDOWN, _RESULTS = "expert_review.html", "expert_review.md", "expert_review.json"


def plan_build(config: BuildReviewConfig) -> str:
    """Say how large the review would be.

    Raises:
        DataError: the answers cannot be used, or a prompt was trained on.
    """
    prompts, excluded = _prompts(config)
    design = config.design
    models = list(prompts[0].answers) if prompts else []
    chosen = prompts[: design.prompts]
    items = len(units_of(chosen, models, design)) * design.each / design.reviewers
    lines = [
        f"Expert review of {len(models)} models: {', '.join(models)}"
        if models
        else "Expert review: there is nothing to show",
        f"  prompts    {len(chosen)} of {len(prompts)} that can be shown",
        f"  reviewers  {design.reviewers}, each item seen by {design.each}",
        f"  a page     about {items:.0f} items and {design.checks} attention checks",
        *(f"  not shown  {count} prompts: {reason}" for reason, count in excluded.items()),
    ]
    return "\n".join(lines)


def build_review(config: BuildReviewConfig) -> Summary:
    """Write the package, and the key beside it.

    Raises:
        CCAIError: the answers cannot be used, or the files not be written.
    """
    prompts, excluded = _prompts(config)
    package, key_file = config.out / PACKAGE_FILE, config.out / KEY_FILE
    key = build_package(
        prompts,
        list(prompts[0].answers) if prompts else [],
        config.design,
        package,
        key_file,
        consent=_consent(config),
        contact=config.contact,
        excluded=excluded,
    )
    items = [len(reviewer.items) for reviewer in key.reviewers]
    return Summary(
        made={"package": str(package), "key": str(key_file)},
        findings=(
            f"{len(key.prompts)} prompts, {len(key.models)} models, {len(items)} pages of "
            f"{min(items)} to {max(items)} items.",
        ),
        notices=(
            "The key says which model wrote what. Keep it, and keep it from reviewers.",
            *_doubts(prompts),
        ),
        next_commands=(
            "python -m flows.human_evaluation collect expert-review-*.json --key "
            f"{shlex.quote(str(key_file))} --workspace {shlex.quote(str(config.out))}",
        ),
    )


def plan_collect(config: CollectReviewConfig) -> str:
    """Say what would be read.

    Raises:
        ConfigError: no file is named.
        DataError: the key cannot be read.
    """
    if not config.files:
        raise ConfigError("Name the files that reviewers saved: expert-review-*.json.")
    key = read_key(config.key)
    out = len(key.reviewers)
    return f"Expert review {key.package}: {len(config.files)} files, {out} pages are out."


def collect_review(config: CollectReviewConfig) -> Summary:
    """Read the files, take the blinds off, write the report and tell MLflow.

    Raises:
        CCAIError: no file can be used, or the report cannot be written.
    """
    key = read_key(config.key)
    reviews = collect_reviews(config.files, key, config.failed_checks_allowed)
    result = evaluate_reviews(reviews, key, config.seed)
    made = {
        _REPORT: render_html(result),
        _MARKDOWN: render_markdown(result),
        _RESULTS: result.model_dump_json(indent=1),
    }
    for name, text in made.items():
        write_whole(config.workspace / name, text)
    uri = _log(config, key, result, [config.workspace / name for name in made])
    return Summary(
        made={"report": str(config.workspace / _REPORT), "tracking": uri},
        findings=headline(result),
        notices=(
            *result.notes,
            *(f"{name} was left out: {reason}" for name, reason in result.rejected.items()),
        ),
    )


def _prompts(config: BuildReviewConfig) -> tuple[list[ReviewPrompt], dict[str, int]]:
    if not config.answers:
        raise ConfigError(
            "--answers: name what is to be reviewed: evaluation.json files, folders with one, or "
            "JSONL files of answers."
        )
    prompts, excluded = read_answers(config.answers, config.models)
    if config.trained_on:
        shown = [
            Prompt(id=p.id, text=p.text, source=p.label or "answers", split="test") for p in prompts
        ]
        refuse_leaks(texts_trained_on(config.trained_on), shown)
    return prompts, excluded


def _consent(config: BuildReviewConfig) -> str | None:
    if config.consent is None:
        return None
    try:
        return config.consent.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{config.consent}: the consent text cannot be read ({error}).") from None


def _doubts(prompts: list[ReviewPrompt]) -> list[str]:
    named = naming_themselves(prompts)
    if not named:
        return []
    return [
        f"{named} answers hold a part of their model's name, by which reviewers may tell who wrote "
        "them."
    ]


def _log(
    config: CollectReviewConfig, key: ReviewKey, result: HumanEvaluation, files: list[Path]
) -> str:
    config.workspace.mkdir(parents=True, exist_ok=True)
    tracking = Tracking(config.tracking_uri, config.experiment, config.workspace)
    try:
        tags = {
            "stage": "human_evaluation",
            "artifact": content_name("expert_review", config.workspace / _RESULTS),
            "command": command_for("human_evaluation collect", config),
        }
        with tracking.run("expert_review", tags=tags) as run:
            run.params(
                {
                    "package": key.package,
                    "models": ", ".join(key.models),
                    "failed_checks_allowed": config.failed_checks_allowed,
                    "seed": config.seed,
                }
            )
            run.metrics(result.metrics())
            for file in files:
                run.artifact(file)
    finally:
        tracking.close()
    return tracking.shown_uri
