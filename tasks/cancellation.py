"""Notice that somebody cancelled the flow run in the Prefect UI.

A flow run that a worker started is ended by its worker. One started from a terminal has nobody to
end it: it has to look for itself, which `Watch` does, a few seconds apart.

    watch = Watch()
    job.result(on_poll=watch.check)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_EVERY_S = 3.0
_ENDING = {StateType.CANCELLING, StateType.CANCELLED}


class FlowCancelled(BaseException):
    """The flow run was cancelled. Not an Exception, so that nothing tries the step again."""


class Watch:
    """Looks at the flow run's state at most every few seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _LOOK_EVERY_S
        self._id = flow_run.get_id()

    def check(self) -> None:
        """Raise `FlowCancelled` if the flow run was cancelled; a server that is away says no."""
        if self._id is None or time.monotonic() < self._next:
            return
        try:
            # Prefect's client would try for minutes; whoever looks has other things to look after.
            with (
                temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
                get_client(sync_client=True) as client,
            ):
                state = client.read_flow_run(self._id).state  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  # work goes on without the server
            logger.debug("The Prefect server does not answer (%s).", error)
            state = None
        self._next = time.monotonic() + _LOOK_EVERY_S
        if state is not None and state.type in _ENDING:
            raise FlowCancelled


def ends_as_cancelled(flow_function: Callable[P, T]) -> Callable[P, T]:
    """Let a flow function end in the state Cancelled instead of Crashed."""

    @wraps(flow_function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return flow_function(*args, **kwargs)
        except FlowCancelled:
            # Prefect takes a state for a result.
            return cast(T, Cancelled(message="Cancelled; its jobs are ended. Run again to go on."))

    return run
