"""What a comparison says before it starts and at its end.

print(plan_compare(config))
summary = compare_summary(site, made)
"""

from __future__ import annotations

import shlex

from ccai_core.comparison.reading import Given, read_results, refuse_unlike
from ccai_core.comparison.words import headline
from flows.compare_config import CompareConfig
from flows.results import Summary
from flows.session import read_cluster
from tasks.comparison import Compared
from tasks.site import Site


def read_given(config: CompareConfig) -> list[Given]:
    """Read the evaluations, and refuse what cannot be compared.

    Raises:
        CCAIError: one cannot be read, or they are not of the same suite, prompts and judge.
    """
    given = read_results(config.results)
    refuse_unlike(given, config.compare.unjudged)
    return given


def plan_compare(config: CompareConfig) -> str:
    """Say what would be compared.

    Raises:
        CCAIError: it cannot be.
    """
    read_cluster(config)
    given = read_given(config)
    result = given[0].result
    judge = "measures without a judge" if config.compare.unjudged else f"judge {result.judge.model}"
    lines = [
        f"  {each.result.trained_model} against {each.result.baseline_model}  {each.file}"
        for each in given
    ]
    return "\n".join(
        [f"Comparison of {len(given)} evaluations: suite {result.suite}, {judge}", *lines]
    )


def compare_summary(site: Site, made: Compared) -> Summary:
    """Say what was found."""
    comparison = made.comparison
    return Summary(
        made={
            "page": str(made.files["page"]),
            "analysis": str(made.files["analysis"]),
            "data": str(made.files["data"]),
            "tracking": site.tracking.shown_uri,
        },
        findings=headline(comparison),
        notices=comparison.notes,
        next_commands=(f"mlflow ui --backend-store-uri {shlex.quote(site.tracking.shown_uri)}",),
    )
