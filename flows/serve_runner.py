"""The process that runs what is started in the UI, and ends it when it is told to stop.

run_deployments([deployment_of(offer, config) for offer in all_offers()], at_most=16)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import FrameType

from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner


class _Runner(Runner):
    """Prefect's, but one that SIGTERM stops in order.

    Its own handler asks for a stop that is never awaited when the loop runs already, and exits: the
    flow runs lose their parent, are called running for ever, and their jobs end with their leases.
    """

    def __init__(self, at_most: int) -> None:
        super().__init__(
            name="ccai",
            # Schedules stay on: what a stopped night has missed is late, and run when we are back.
            pause_on_shutdown=False,
            limit=at_most,
        )
        self._stop: asyncio.Task[None] | None = None

    def handle_sigterm(self, _: int = 0, __: FrameType | None = None) -> None:
        """Cancel every flow run of this process, wait for their ends, and stop."""
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(self._begin_to_stop)

    def _begin_to_stop(self) -> None:
        if self._stop is None:
            self._stop = asyncio.get_running_loop().create_task(self.astop())


def run_deployments(deployments: Sequence[RunnerDeployment], at_most: int) -> None:
    """Register the deployments, and run what is started until SIGTERM or Ctrl-C."""
    runner = _Runner(at_most)
    for deployment in deployments:
        runner.add_deployment(deployment)
    print(f"{len(deployments)} deployments are served. Ctrl-C ends it.", flush=True)
    asyncio.run(runner.start())
