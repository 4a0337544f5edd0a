"""The report of a flow run: written into the workspace, logged to MLflow, linked in Prefect.

path = publish_report(site, data)
"""

from __future__ import annotations

from pathlib import Path

from ccai_core.report import ReportData, headlines, write_report
from tasks.policy import retried_task
from tasks.shown import show_markdown
from tasks.site import Site


@retried_task(name="publish-report")
def publish_report(site: Site, data: ReportData, name: str = "report.html") -> Path:
    """Write the report into the workspace, whole, and hand it on; returns its path."""
    path = site.workspace.root / name
    # Whoever asks later where the page came from finds there what it rests on.
    data = data.model_copy(update={"artifacts": {**data.artifacts, **site.reported}})
    write_report(data, path)
    site.run.artifact(path)
    lines = [f"- {line}" for line in headlines(data)]
    show_markdown(
        "\n".join([f"# {data.title}", "", *lines, "", f"Report: `{path}`"]),
        key="report",
        description="What the run found",
    )
    return path
