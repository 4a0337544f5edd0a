"""The research analysis of a comparison: Markdown in which every number links to its source.

    text = research_analysis(comparison_sources(comparison, folder, folder, run="3f2a"))
    write_whole(folder / "research_analysis.md", text)

What an evaluation itself has is read from its file, the rest (differences between evaluations,
corrections, trends) from `comparison.json`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ccai_core.comparison import traced_tables as tables
from ccai_core.comparison.traced_tables import ComparisonSources
from ccai_core.dataset_card import cell
from ccai_core.evaluation.results import Group
from ccai_core.report import words
from ccai_core.report.words import GROUPS
from ccai_core.traced import NOT_MEASURED, Trace, code, pointer, table

ANALYSIS_FILE = "research_analysis.md"


def research_analysis(sources: ComparisonSources) -> str:
    """Return the analysis."""
    trace = Trace()
    parts = [*_parts(sources, trace), "## Trace", trace.numbers(), "### Sources", trace.sources()]
    return "\n\n".join(filter(None, parts)) + "\n"


def _parts(sources: ComparisonSources, trace: Trace) -> Iterator[str]:
    comparison = sources.comparison
    yield "# Research analysis"
    yield (
        "Written by a program from the results alone. Every number is a link to the trace at the "
        "end, which names its file, its place in it, the MLflow run and the command. Intervals are "
        "95%. Better or worse is said only where the interval of a paired difference excludes "
        "zero; p-values are corrected for the number of tests (Holm)."
    )
    notes = (pointer("notes", place) for place in range(len(comparison.notes)))
    yield "\n".join(f"- {trace.value(sources.own, where, str)}" for where in notes)
    yield "## What was compared"
    yield from _models(sources, trace)
    yield "## Findings"
    for group, title in GROUPS.items():
        yield f"### {title}"
        yield from _group(sources, trace, group)
    yield "## Over model size"
    yield from _sizes(sources, trace)
    yield "## Success criteria"
    for source, origin in zip(sources.evaluations, comparison.origins, strict=True):
        yield f"{code(origin.trained)} against {code(origin.baseline)}:"
        yield tables.criteria(trace, source)
    yield "## The judge"
    yield from _judge(sources, trace)
    yield "## What is missing"
    yield "\n".join(f"- {line}" for line in missing(sources))


def _models(sources: ComparisonSources, trace: Trace) -> Iterator[str]:
    comparison = sources.comparison
    judge = comparison.judge
    by = f"judged by {code(judge.model)}" if judge else "only measures without a judge"
    yield f"Suite {code(comparison.suite)}, {by}."
    rows = [
        (
            code(model.label),
            code(model.identity),
            ", ".join(model.roles),
            trace.value(
                sources.own, pointer("models", place, "parameters"), tables.count, "not known"
            ),
        )
        for place, model in enumerate(comparison.models)
    ]
    yield table(("model", "identity", "role", "parameters"), rows)


def _group(sources: ComparisonSources, trace: Trace, group: Group) -> Iterator[str]:
    found = [(i, m) for i, m in enumerate(sources.comparison.measures) if m.group == group]
    if not found:
        yield f"{NOT_MEASURED.capitalize()}: no evaluation has a measure of it."
    for place, measure in found:
        judged = ", rated by the judge" if measure.judged else ""
        how = trace.value(sources.own, pointer("measures", place, "description"), str)
        yield f"**{cell(measure.title)}**{judged}. {how}"
        yield tables.levels(trace, sources, place)
        yield tables.differences(trace, sources, place)


def _sizes(sources: ComparisonSources, trace: Trace) -> Iterator[str]:
    found = tables.trends(trace, sources)
    if found is None:
        yield f"{NOT_MEASURED.capitalize()}: there are too few sizes."
        return
    yield (
        "The slope of a line in the logarithm of the number of weights: the change for ten times "
        "as many. Its interval draws the same items for all sizes. The worst miss is how far the "
        "worst size is from the line through the others."
    )
    yield found


def _judge(sources: ComparisonSources, trace: Trace) -> Iterator[str]:
    judge = sources.comparison.judge
    if judge is None:
        yield "No judge stands behind the numbers here."
        return
    if words.judge_doubt(judge):
        yield (
            "**The judge is weak**: where the right answer is known it is not reliably right. What "
            "it rated is a hint, not evidence."
        )
    yield tables.calibrations(trace, sources.own)


def missing(sources: ComparisonSources) -> Iterator[str]:
    """Say what a reader may look for and will not find."""
    comparison = sources.comparison
    measured = {measure.group for measure in comparison.measures}
    for group, title in GROUPS.items():
        if group not in measured:
            yield f"{title}: {NOT_MEASURED}."
    for measure in comparison.measures:
        if measure.missing:
            names = ", ".join(map(code, measure.missing))
            yield f"{cell(measure.title)}: {NOT_MEASURED} for {names}."
    if not any(measure.trends for measure in comparison.measures):
        yield f"Change over model size: {NOT_MEASURED}."
    for origin in comparison.origins:
        if origin.run is None:
            yield f"The MLflow run of {code(origin.name)}: none is known."
        if origin.command is None:
            yield f"The command that makes {code(origin.name)}: not known."
    yield "Another seed, or another training run of the same models: in no interval here."
