"""The gate at the end of a validation: the plan's success criteria, decided, for people and files.

gate = gate_of(result, labels, evaluation="artifacts/evaluation-3f2a")
gate.passed, gate.headline
write_whole(folder / "gate.html", gate_page(gate).html())
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from ccai_core.config import Config
from ccai_core.evaluation.results import EvaluationResult, Interval
from ccai_core.evaluation.verdict import Verdict, decisions
from ccai_core.report.sections import Section, SectionPage


class Decided(Config):
    """One criterion, decided."""

    criterion: str = Field(description="As the plan says it.")
    verdict: Verdict = Field(description="Whether it is met.")
    wanted: float = Field(description="What is compared with.")
    found: Interval | None = Field(description="The value, or the ratio to the baseline.")
    by: str = Field(description="The measure that decides; empty: none was taken.")
    n: int = Field(description="Items of that measure.")
    why: str = Field(description="Why the verdict is this.")


class Gate(Config):
    """All criteria of one validation."""

    model: str = Field(description="Identity of the trained model.")
    baseline: str = Field(description="Identity of the model before training.")
    suite: str = Field(description="Name of the suite.")
    judge: str = Field(description="Identity of the judge.")
    labels: tuple[str, ...] = Field((), description="What the numbers are numbers of.")
    criteria: tuple[Decided, ...] = Field(description="In the plan's order.")
    evaluation: str = Field(description="The evaluation that it rests on, as seen from here.")

    @property
    def passed(self) -> bool:
        """Whether every criterion is shown to be met."""
        return all(each.verdict == "met" for each in self.criteria)

    @property
    def headline(self) -> str:
        """Say it in a sentence."""
        met = sum(each.verdict == "met" for each in self.criteria)
        not_met = sum(each.verdict == "not met" for each in self.criteria)
        total = len(self.criteria)
        if self.passed:
            return f"The gate is passed: all {total} success criteria are met."
        return (
            f"The gate is not passed: {met} of {total} success criteria are met, {not_met} are "
            f"not, {total - met - not_met} could not be decided."
        )


def gate_of(result: EvaluationResult, labels: Sequence[str], evaluation: str) -> Gate:
    """Decide the criteria by an evaluation."""
    return Gate(
        model=result.trained_model,
        baseline=result.baseline_model,
        suite=result.suite,
        judge=result.judge.model,
        labels=tuple(labels),
        criteria=tuple(
            Decided(
                criterion=each.criterion.title,
                verdict=each.verdict,
                wanted=each.criterion.wanted,
                found=each.value,
                by=each.metric.title if each.metric else "",
                n=each.metric.n if each.metric else 0,
                why=each.why,
            )
            for each in decisions(result.metrics, result.judge.weak)
        ),
        evaluation=evaluation,
    )


def gate_page(gate: Gate) -> SectionPage:
    """Return the page of a gate."""
    facts = (
        ("Model", gate.model),
        ("Against", gate.baseline),
        ("Suite", gate.suite),
        ("Judge", gate.judge),
        ("Evaluation", gate.evaluation),
    )
    rows = tuple(
        (
            each.criterion,
            each.verdict,
            f"{each.wanted:.2f}",
            f"{each.found.estimate:.3f} ({each.found.low:.3f} to {each.found.high:.3f})"
            if each.found
            else "–",
            f"{each.by} (n = {each.n})" if each.by else "–",
            each.why,
        )
        for each in gate.criteria
    )
    section = Section(
        "Success criteria",
        "Found is the trained model's value, or its ratio to the baseline where the criterion is "
        "about a change. Met and not met are said only where the whole 95% interval agrees.",
        ("criterion", "verdict", "wanted", "found (95% interval)", "by", "why"),
        rows,
    )
    return SectionPage("Validation", facts, (gate.headline,), gate.labels, (section,))
