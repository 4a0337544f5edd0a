"""The gate of a validation: written into the workspace, logged to MLflow, shown in Prefect.

files = publish_gate(site, gate)
"""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_table_artifact

from ccai_core.evaluation.gate import Gate, gate_page
from ccai_core.files import write_whole
from tasks.policy import retried_task
from tasks.site import Site


@retried_task(name="publish-gate")
def publish_gate(site: Site, gate: Gate) -> dict[str, Path]:
    """Write page, Markdown and data, and hand them on; returns their paths."""
    page, root = gate_page(gate), site.workspace.root
    texts = {
        "gate": ("gate.html", page.html()),
        "gate (Markdown)": ("gate.md", page.markdown()),
        "gate (data)": ("gate.json", gate.model_dump_json(indent=1) + "\n"),
    }
    files = {}
    for label, (name, text) in texts.items():
        files[label] = root / name
        write_whole(files[label], text)
        site.run.artifact(files[label])
    site.run.tags(
        {
            "gate.passed": str(gate.passed),
            **{f"gate.{each.criterion}": each.verdict for each in gate.criteria},
        }
    )
    create_table_artifact(
        [
            {"criterion": each.criterion, "verdict": each.verdict, "why": each.why}
            for each in gate.criteria
        ],
        key="gate",
        description=gate.headline,
    )
    return files
