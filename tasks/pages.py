"""Where people see a flow run: its page in Prefect, its page in MLflow, each linked to the other.

show_mlflow(run)
"""

from __future__ import annotations

from uuid import UUID

from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import get_current_settings

from infra.tracking import Run
from tasks.shown import show_link


def page_of_flow_run(run_id: UUID | str | None = None) -> str:
    """Return the address of a flow run (of this one) in the UI; empty without a UI or a run."""
    ui, known = get_current_settings().ui_url, run_id or flow_run.get_id()
    return f"{ui}/runs/flow-run/{known}" if ui and known else ""


def show_mlflow(run: Run) -> None:
    """Link the flow run to its run in MLflow, where that has an address."""
    if run.page:
        get_run_logger().info("In MLflow: %s", run.page)
        show_link(run.page, key="mlflow", text="This run in MLflow")
