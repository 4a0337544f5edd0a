"""When a task is tried again, and when it is not: the same for all tasks.

@task(**RETRIED)
def train_dpo(site: Site, ...) -> ...:
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from ccai_core.errors import ArtifactError, ConfigError, DataError, ModelError

# The user must mend these; the same input fails the same way again.
_FINAL = (ConfigError, DataError, ModelError, ArtifactError)


def is_worth_retrying(_: Task[Any, Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task may succeed the next time: a lost job, a server that was away."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, _FINAL)


RETRIED: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 15],
    "retry_condition_fn": is_worth_retrying,
    # Artifacts are reused by their own fingerprint, on any machine; Prefect need not know.
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
