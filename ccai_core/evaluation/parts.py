"""What a suite is made of: parts, each with its own prompts, generation settings, scorers and sums.

A part asks one model (`ask`), lets the judges score what it answered (`judge`), and compares two
models (`findings`). What was asked is keyed by name, so that both models' answers are paired. Every
call goes through the journal, so a part that was interrupted goes on where it was.

    asked = await part.ask(engine, report)
    outcome = Outcome(asked, await part.judge(judges, asked, report))
    findings = part.findings(before, after)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ccai_core.engines import Engine
from ccai_core.evaluation import statistics
from ccai_core.evaluation.counted import Report
from ccai_core.evaluation.judge import Judge, SafetyRater
from ccai_core.evaluation.results import Group, ItemValues, Metric, Table, Unit
from ccai_core.types import Completion

Asked = Mapping[str, Completion]
# None where the judge's answer could not be read: never a default.
Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Judges:
    """Who scores: a model that answers yes/no questions and writes, and a rater of safety."""

    engine: Engine
    judge: Judge
    safety: SafetyRater


@dataclass(frozen=True)
class Outcome:
    """What one model answered, and the scores of that."""

    asked: Asked
    scores: Scores


@dataclass(frozen=True)
class Rating:
    """How a part's answers are rated, so that several judges can be put together.

    Args:
        by: the safety rater, the judging model, or nobody: the part reads the answers itself.
        scale: a verdict (a probability, yes above 0.5), a grade, or none.
        title: what is rated, for tables of agreement.
    """

    by: Literal["safety", "judge", "nobody"]
    scale: Literal["verdict", "grade", "none"] = "none"
    title: str = ""


UNRATED = Rating("nobody")


@dataclass(frozen=True)
class Findings:
    """A part's share of the result."""

    metrics: tuple[Metric, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    too_few: tuple[str, ...] = field(default=())


class Part(Protocol):
    """One kind of measurement."""

    @property
    def name(self) -> str:
        """Key, e.g. 'robustness'."""

    @property
    def rating(self) -> Rating:
        """Who rates its answers, and how."""

    @property
    def calls(self) -> int:
        """How many completions of one model it asks for."""

    @property
    def most_tokens(self) -> int:
        """How many tokens one model writes for them at most."""

    @property
    def judged(self) -> int:
        """How many of one model's answers are judged."""

    @property
    def identity(self) -> Any:
        """All that determines what it finds, JSON-like, for the fingerprint of the evaluation."""

    async def ask(self, engine: Engine, report: Report) -> Asked:
        """Let a model answer."""

    async def judge(self, judges: Judges, asked: Asked, report: Report) -> Scores:
        """Score the answers of one model."""

    def belongs(self, key: str) -> str:
        """Name what an answer belongs to; answers of one thing are no independent evidence."""

    def findings(self, before: Outcome, after: Outcome) -> Findings:
        """Compare two models."""


def answered(completion: Completion) -> bool:
    """Whether there is an answer to score; one that the token limit cut off is one."""
    return completion.finish_reason in {"stop", "length"} and bool(completion.text.strip())


def paired(before: Scores, after: Scores) -> tuple[dict[str, tuple[float, float]], dict[str, int]]:
    """Return the scores that both models have, and how many are left out, by reason."""
    pairs: dict[str, tuple[float, float]] = {}
    left_out: Counter[str] = Counter()
    for key in before:
        was, now = before[key], after.get(key)
        if was is None or now is None:
            which = "baseline" if was is None else "trained"
            left_out[f"{which}_without_score"] += 1
        else:
            pairs[key] = (was, now)
    return pairs, dict(sorted(left_out.items()))


@dataclass(frozen=True)
class About:
    """What a metric is called and means."""

    id: str
    title: str
    group: Group
    description: str
    judged: bool = False
    unit: Unit = "share"
    higher_is_better: bool = True


def share_metric(
    about: About,
    pairs: Sequence[tuple[bool, bool]],
    excluded: Mapping[str, int],
    test: str = "exact McNemar test",
    keys: Sequence[str] = (),
) -> Metric | About:
    """Compare two shares of the same items; what it is about, where there are too few.

    With `keys`, names of the items, other evaluations can be paired with this one.
    """
    if len(pairs) < statistics.LEAST_ITEMS:
        return about
    before, after = [b for b, _ in pairs], [t for _, t in pairs]
    return Metric(
        **vars(about),
        baseline=statistics.share_interval(sum(before), len(pairs)),
        trained=statistics.share_interval(sum(after), len(pairs)),
        difference=statistics.share_difference(before, after),
        p_value=statistics.mcnemar_exact(before, after),
        test=test,
        n=len(pairs),
        excluded=dict(excluded),
        items=_items("share", keys, pairs),
    )


def mean_metric(
    about: About,
    pairs: Sequence[tuple[float, float]],
    excluded: Mapping[str, int],
    seed: int,
    keys: Sequence[str] = (),
) -> Metric | About:
    """Compare two means over the same items; what it is about, where there are too few.

    With `keys`, names of the items, other evaluations can be paired with this one.
    """
    if len(pairs) < statistics.LEAST_ITEMS:
        return about
    before, after = [b for b, _ in pairs], [t for _, t in pairs]
    return Metric(
        **vars(about),
        baseline=statistics.mean_interval(before, seed),
        trained=statistics.mean_interval(after, seed),
        difference=statistics.mean_difference(before, after, seed),
        p_value=statistics.sign_flip(before, after, seed),
        test="paired sign-flip test",
        n=len(pairs),
        excluded=dict(excluded),
        items=_items("mean", keys, pairs),
    )


def _items(
    kind: Literal["share", "mean"], keys: Sequence[str], pairs: Sequence[tuple[float, float]]
) -> ItemValues | None:
    if not keys:
        return None
    return ItemValues(
        kind=kind,
        names=tuple(keys),
        baseline=tuple(float(before) for before, _ in pairs),
        trained=tuple(float(after) for _, after in pairs),
    )


def by_cluster(
    pairs: Mapping[str, tuple[float, float]], cluster: Mapping[str, str]
) -> list[tuple[float, float]]:
    """Average pairs that belong together (a prompt's attacks, a question's turns): one item each.

    What belongs together is no independent evidence, so it is resampled as a whole.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for key, pair in pairs.items():
        groups.setdefault(cluster[key], []).append(pair)
    return [
        (sum(b for b, _ in group) / len(group), sum(a for _, a in group) / len(group))
        for group in groups.values()
    ]


def clusters(pairs: Iterable[str], cluster: Mapping[str, str]) -> list[str]:
    """Return the names of what `by_cluster` averages, in its order."""
    return list(dict.fromkeys(cluster[key] for key in pairs))


def collected(
    candidates: Sequence[Metric | About],
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> Findings:
    """Sort measures from those that had too few items."""
    return Findings(
        metrics=tuple(c for c in candidates if isinstance(c, Metric)),
        tables=tuple(tables),
        notes=tuple(notes),
        too_few=tuple(c.title for c in candidates if isinstance(c, About)),
    )
