"""Go on with less at once when memory runs out in the middle of a training.

result = until_it_fits(run, lambda fitting: _train(fitting, began))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from ccai_core import memory

if TYPE_CHECKING:
    from ccai_core.training_run import PreparedRun

R = TypeVar("R")


def until_it_fits(run: PreparedRun, attempt: Callable[[PreparedRun], R]) -> R:
    """Train; when memory runs out, go on with fewer pairs at once and as many in an update."""
    while True:
        try:
            return attempt(run)
        except RuntimeError as error:
            fewer = memory.smaller_batches(run.config)
            # Of several processes the others would wait for ever for the one that begins again.
            alone = run.ranks.world == 1
            if fewer is None or not alone or not memory.is_out_of_memory(error):
                raise
        # Only here, the error being gone, are the tensors that its frames held.
        memory.give_back(run.device)
        run.tell(
            f"Warning: memory ran out with {run.config.batch_size} pairs at once; going on with "
            f"{fewer.batch_size}, and {fewer.gradient_accumulation} batches an update."
        )
        run = replace(run, config=fewer)
