"""A comparison of evaluations: traced to the runs that made them, written, and reported.

made = compare_results(site, given, BuildConfig(), command="python -m flows.compare a b")
made.comparison, made.files["page"]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ccai_core.comparison.analysis import ANALYSIS_FILE, research_analysis
from ccai_core.comparison.build import BuildConfig, build_comparison, plain_origin
from ccai_core.comparison.figures import figures
from ccai_core.comparison.page import render_page
from ccai_core.comparison.reading import Given
from ccai_core.comparison.results import Comparison, Origin
from ccai_core.comparison.traced_tables import COMPARISON_FILE, comparison_sources
from ccai_core.comparison.words import headline
from ccai_core.files import write_whole
from ccai_core.traced import run_address
from infra.mlflow_store import shown
from infra.origin import content_name, find_origin, store_of
from tasks.policy import retried_task
from tasks.shown import show_markdown
from tasks.site import Site

PAGE_FILE, FIGURES_FOLDER = "comparison.html", "figures"


class Compared(NamedTuple):
    """What was found, and where it was written."""

    comparison: Comparison
    files: dict[str, Path]
    """By what they are: page, data, analysis, pictures."""


@retried_task(name="compare-results")
def compare_results(
    site: Site,
    given: Sequence[Given],
    config: BuildConfig,
    command: str,
    tracking_uri: str | None = None,
) -> Compared:
    """Compare evaluations and write page, data, analysis and pictures into the workspace.

    `tracking_uri` is where the evaluations' runs are, if the user named it.
    """
    root = site.workspace.root
    created = datetime.now(UTC).isoformat(timespec="seconds")
    origins = [trace(each, root, tracking_uri) for each in given]
    comparison = build_comparison(given, config, created, command, origins)
    pictures = figures(comparison)
    files = {
        "page": root / PAGE_FILE,
        "data": root / COMPARISON_FILE,
        "analysis": root / ANALYSIS_FILE,
    }
    write_whole(files["data"], comparison.model_dump_json(indent=1) + "\n")
    write_whole(files["page"], render_page(comparison, pictures))
    for name, picture in pictures.items():
        files[name] = root / FIGURES_FOLDER / f"{name}.svg"
        write_whole(files[name], picture)
    address = run_address(site.run.id, site.tracking.experiment_id, shown(site.tracking.uri))
    sources = comparison_sources(comparison, root, root, site.run.id, address)
    write_whole(files["analysis"], research_analysis(sources))
    _report(site, comparison, files)
    return Compared(comparison, files)


def trace(given: Given, root: Path, tracking_uri: str | None) -> Origin:
    """Return where an evaluation is from: its file as seen from `root`, its run, its command."""
    origin = plain_origin(given).model_copy(
        update={"file": os.path.relpath(given.file.resolve(), root)}
    )
    uri = store_of(given.file.resolve().parent, tracking_uri)
    made = find_origin(uri, given.name) if uri else None
    if made is None or uri is None:
        return origin
    return origin.model_copy(
        update={
            "run": made.run_id,
            "experiment": made.experiment_id,
            "tracking": shown(uri),
            "command": made.command or None,
        }
    )


def _report(site: Site, comparison: Comparison, files: dict[str, Path]) -> None:
    values: dict[str, float] = {}
    for measure in comparison.measures:
        for level in measure.levels:
            values[f"{measure.id}/{level.model}"] = level.value.estimate
        for each in measure.differences:
            name = f"{measure.id}/{each.model} minus {each.against}"
            values[name] = each.difference.estimate
            values[f"{name}/low"] = each.difference.low
            values[f"{name}/high"] = each.difference.high
    site.run.metrics(values)
    site.run.tags({"artifact": content_name("comparison", files["data"])})
    for path in files.values():
        site.run.artifact(path, None if path.parent == site.workspace.root else path.parent.name)
    show_markdown(
        "\n".join(["# Comparison", "", *(f"- {line}" for line in headline(comparison))]),
        key="comparison",
        description="What the comparison found",
    )
