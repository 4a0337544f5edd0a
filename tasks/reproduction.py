"""The report of a reproduction: written into the workspace, logged to MLflow, shown in Prefect.

files = publish_reproduction(site, reproduction)
"""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_table_artifact

from ccai_core.files import write_whole
from ccai_core.release.reproduction import Reproduction, reproduction_page
from infra.origin import content_name
from tasks.policy import retried_task
from tasks.site import Site


@retried_task(name="publish-reproduction")
def publish_reproduction(site: Site, made: Reproduction) -> dict[str, Path]:
    """Write page, Markdown and data, and hand them on; returns their paths."""
    page, root = reproduction_page(made), site.workspace.root
    texts = {
        "report": ("reproduction.html", page.html()),
        "markdown": ("reproduction.md", page.markdown()),
        "numbers": ("reproduction.json", made.model_dump_json(indent=1) + "\n"),
    }
    files = {}
    for label, (name, text) in texts.items():
        files[label] = root / name
        write_whole(files[label], text)
        site.run.artifact(files[label])
    counts = {f"reproduction/{name}": float(count) for name, count in made.counts.items()}
    site.run.metrics(counts)
    site.run.tags(
        {
            "artifact": content_name("reproduction", files["numbers"]),
            "reproduced": str(made.passed),
        }
    )
    create_table_artifact(
        [
            {
                "number": f"{number.name}, {number.which}",
                "released": f"{number.released.low:.4g} to {number.released.high:.4g}",
                "found": "–" if number.found is None else f"{number.found:.4g}",
                "outcome": number.outcome,
            }
            for number in made.numbers
        ],
        key="reproduction",
        description=made.headline,
    )
    return files
