"""When a task is tried again, and when it is not: the same for all tasks.

@retried_task(name="train-dpo")
def train_dpo(site: Site, ...) -> ...:
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from ccai_core.errors import ArtifactError, ConfigError, DataError, ModelError
from tasks.task_ends import kept_to_its_end

P = ParamSpec("P")
R = TypeVar("R")

# The user must mend these; the same input fails the same way again.
_FINAL = (ConfigError, DataError, ModelError, ArtifactError)


def is_worth_retrying(_: Task[Any, Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task may succeed the next time: a lost job, a server that was away."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, _FINAL)


def retried_task(
    name: str, task_run_name: str | None = None
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Prefect task that is tried three times, and whose end Prefect gets."""
    made = task(
        name=name,
        task_run_name=task_run_name,
        retries=2,
        retry_delay_seconds=[2, 15],
        retry_condition_fn=is_worth_retrying,
        # Artifacts are reused by their own fingerprint, on any machine; Prefect need not know.
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return lambda function: made(kept_to_its_end(function))
