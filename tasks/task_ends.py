"""The ends of a flow run's tasks in the Prefect UI, also of those that its server has dropped.

Prefect's server takes the states of tasks as events, and writes them down afterwards. What it could
not write in six tries, half a minute with a database that is away, it drops: of a task that has
ended the UI says for ever that it runs. So a flow run looks at its end what the server knows of its
tasks, and tells it again what it lacks.

    @retried_task(name="train-dpo")  # of tasks.policy, by `kept_to_its_end`
    def train_dpo(site: Site, ...) -> ...:

    send_missing_ends()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from copy import copy
from functools import wraps
from typing import ParamSpec, TypeVar
from uuid import UUID, uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId
from prefect.client.schemas.objects import StateType, TaskRun
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.utilities.engine import emit_task_run_state_change_event

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_LOOK_EVERY_S = 0.5
_ON_ITS_WAY_S = 40.0
"""How long an end may be on its way. A server whose database is back writes one in five seconds."""
_TIMES = 3
_AT_ONCE = 100

_task_runs: dict[UUID, TaskRun] = {}


def kept_to_its_end(function: Callable[P, R]) -> Callable[P, R]:
    """Let a task's function remember its task run, for `send_missing_ends`."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if context := TaskRunContext.get():
            # Prefect's own object, into which it writes every state, the last one too.
            _task_runs[context.task_run.id] = context.task_run
        return function(*args, **kwargs)

    return run


def send_missing_ends() -> None:
    """Tell the server of this flow run's tasks whose ends it lacks, and wait until it has them.

    Raises:
        httpx.HTTPError: the server, or its database, is away: to be called again.
    """
    ours = [each for each in _task_runs.values() if str(each.flow_run_id) == flow_run.get_id()]
    lacks = _lacking(ours)
    for _ in range(_TIMES):
        for task_run in lacks:
            _send_end(task_run)
        if not lacks:
            break
        lacks = _lacking(lacks)
    else:
        # It answers all the time, so waiting for it is no use: its recorder may be switched off.
        logger.warning(
            "Prefect does not take the ends of %d tasks: it shows them as unfinished.", len(lacks)
        )
    for task_run in ours:
        _task_runs.pop(task_run.id, None)


def _lacking(task_runs: Iterable[TaskRun]) -> list[TaskRun]:
    """Return those whose end the server has not got, although it has had time to write it down."""
    lacks = [each for each in task_runs if each.state and each.state.is_final()]
    until = time.monotonic() + _ON_ITS_WAY_S
    while True:
        known = _known(lacks)
        lacks = [each for each in lacks if known.get(each.id) != each.state_type]
        if not lacks or time.monotonic() > until:
            return lacks
        time.sleep(_LOOK_EVERY_S)


def _known(task_runs: list[TaskRun]) -> dict[UUID, StateType | None]:
    """Return the states in which the server sees them."""
    known: dict[UUID, StateType | None] = {}
    with get_client(sync_client=True) as client:
        for first in range(0, len(task_runs), _AT_ONCE):
            asked = [each.id for each in task_runs[first : first + _AT_ONCE]]
            found = client.read_task_runs(
                task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=asked)), limit=_AT_ONCE
            )
            known |= {each.id: each.state_type for each in found}
    return known


def _send_end(task_run: TaskRun) -> None:
    """Send the last state once more, with the times it had."""
    if task_run.state is not None:
        # Under its own id the server would take it for a repetition, and forget it.
        again = copy(task_run.state)
        again.id = uuid4()
        emit_task_run_state_change_event(task_run, initial_state=None, validated_state=again)
