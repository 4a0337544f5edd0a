"""Who answers: what an engine can do, and how a step gets one for a model.

A step that needs text is handed an `OpenEngine` and cannot tell whether it opens the model in this
process or a fleet of servers.

    async with engines(model, precision="fp32") as engine:
        completion = await engine.generate(call)
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from ccai_core.models import Device, ModelRef, Precision
from ccai_core.types import Generate, Score


class Engine(Generate, Score, Protocol):
    """A model that writes answers and weighs texts."""


class OpenEngine(Protocol):
    """Gives an engine for a model, for as long as it is needed."""

    def __call__(
        self, model: ModelRef, precision: Precision = "auto", batch_size: int = 32
    ) -> AbstractAsyncContextManager[Engine]:
        """Open an engine.

        Args:
            model: the resolved model.
            precision: weights' dtype; scoring wants fp32 (see docs/evaluation.md).
            batch_size: most sequences that a model in this process computes together.

        Raises:
            ModelError: the model cannot be loaded.
            EngineError: no server can be had.
        """


@dataclass(frozen=True)
class LocalEngines:
    """`OpenEngine` in this process, one model in memory at a time; travels to jobs as it is."""

    device: Device = "auto"

    def __call__(
        self, model: ModelRef, precision: Precision = "auto", batch_size: int = 32
    ) -> AbstractAsyncContextManager[Engine]:
        """Return the model as an engine that loads when it is entered."""
        from ccai_core.local_engine import LocalEngine

        return LocalEngine(model, self.device, precision, batch_size)
