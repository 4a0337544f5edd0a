"""The random numbers that training draws: where they stand, and back there again.

state.take()          # after a whole update
state.put_back()      # the draws since then were for nothing
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class RandomState:
    """Remembers the state of every generator that a checkpoint holds."""

    def __init__(self) -> None:
        """Remember where they stand now."""
        self.take()

    def take(self) -> None:
        """Remember where they stand now."""
        self._python: Any = random.getstate()
        self._numpy: Any = np.random.get_state()
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def put_back(self) -> None:
        """Set them back to where they stood."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)
