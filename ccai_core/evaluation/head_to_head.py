"""Both models' answers to the same scenario, side by side: which one does a judge prefer?

The judge does not know which is which and sees them in both orders; what it prefers is also told
for answers of equal length (`ccai_core/judges/pairwise.py`).

    table = head_to_head_table(await head_to_head(engine, scenarios, before, after, report), seed=0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ccai_core.evaluation.counted import Report, counted
from ccai_core.evaluation.results import Interval, Table
from ccai_core.evaluation.statistics import LEAST_ITEMS, mean_interval, share_interval
from ccai_core.evaluation.suite import Answers, exclusion
from ccai_core.judges.agreement import most_say
from ccai_core.judges.pairwise import Preference, preference, win_rate
from ccai_core.types import Choose, Prompt

# A preference, and both answers' lengths in words.
Duel = tuple[Preference, tuple[int, int]]
_HALF = 0.5


async def head_to_head(
    engine: Choose,
    scenarios: Sequence[Prompt],
    baseline: Answers,
    trained: Answers,
    report: Report,
) -> list[Duel]:
    """Ask about every scenario that counts and whose answers differ."""
    texts = [
        (p.text, baseline.completions[p.text].text, trained.completions[p.text].text)
        for p in scenarios
        if exclusion(p, baseline, trained) is None
    ]
    differing = [each for each in texts if each[1] != each[2]]
    found = await counted("head to head", (preference(engine, *each) for each in differing), report)
    lengths = [(len(b.split()), len(a.split())) for _, b, a in differing]
    return list(zip(found, lengths, strict=True))


def head_to_head_table(
    duels: Sequence[Duel],
    scenarios: int,
    seed: int,
    by_judge: Mapping[str, Sequence[Duel]] | None = None,
) -> Table | None:
    """Sum up; nothing where too few answers differ.

    Args:
        duels: of the judge, or of several together.
        scenarios: how many there were.
        seed: of the intervals.
        by_judge: each judge's own, where there are several.
    """
    if len(duels) < LEAST_ITEMS:
        return None
    result = win_rate([p for p, _ in duels], [lengths for _, lengths in duels], seed)
    rows: Mapping[str, Interval | None] = {
        "Trained model preferred": result.preferred,
        "The same at equal length": result.length_controlled,
        "Both orders agree": result.consistent,
    }
    each = by_judge or {}
    most = [most_say([p.second for p, _ in of_one]) for of_one in zip(*each.values(), strict=True)]
    won = [value > _HALF for value in most if value is not None]
    if won:
        rows = {**rows, "Most judges prefer it": share_interval(sum(won), len(won))}
    return Table(
        id="contemplative.head_to_head",
        title="Head to head on scenarios",
        columns=("Share", "Estimate", "Low", "High", "Pairs"),
        rows=(
            *((name, *_ends(interval), len(duels)) for name, interval in rows.items()),
            *(
                (f"Preferred by {name}", *_ends(_preferred(own, seed)), len(own))
                for name, own in each.items()
            ),
            ("Preference for what is shown first", result.first_position, None, None, len(duels)),
        ),
        note="The judge's probability that the trained model's answer is the better one, over both "
        "orders; of several judges the mean, and what most prefer without ties. "
        f"{scenarios - len(duels)} of {scenarios} scenarios are left out: both answers are "
        "the same, or one is missing. Nothing shown to be preferred where the interval holds 0.5.",
    )


def _preferred(duels: Sequence[Duel], seed: int) -> Interval:
    return mean_interval([p.second for p, _ in duels], seed)


def _ends(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (interval.estimate, interval.low, interval.high) if interval else (None, None, None)
