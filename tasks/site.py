"""What every task of a flow run is handed: where to work, where to report, who is watching.

site = Site(workspace, cluster, tracking, run, show=console.show)
"""

from __future__ import annotations

from collections.abc import Callable

from infra.cluster import ClusterConfig
from infra.tracking import Run, Tracking
from infra.workspace import Workspace

Show = Callable[[str, int, int, str, bool], None]
"""Called with (step, done, total, detail, through) whenever a long step has moved.

A step can have several stages; only the last word of the last one says that it is through.
"""


def show_nothing(step: str, done: int, total: int, detail: str, through: bool) -> None:
    """Show progress to nobody: the Prefect UI and the logs still have it."""


class Site:
    """One flow run's surroundings.

    A plain class on purpose: Prefect looks through dataclasses and pydantic models that are handed
    to a task, and may rebuild them.
    """

    def __init__(
        self,
        workspace: Workspace,
        cluster: ClusterConfig,
        tracking: Tracking,
        run: Run,
        show: Show = show_nothing,
        owner: str = "",
    ) -> None:
        self.workspace, self.cluster = workspace, cluster
        self.owner = owner
        """Whom GPU hours are charged to: the flow run."""
        self.tracking, self.run, self.show = tracking, run, show
        self.reported: dict[str, str] = {}
        """What a report rests on beside what its flow says: label to path in the workspace."""
