"""How much one endpoint is asked at once, and whether at all: what its answers teach.

limit = AdaptiveLimit(start=32, most=64)
limit.shrink(sent_at, now)
"""

from __future__ import annotations

import math
from typing import Literal

CircuitState = Literal["closed", "open", "half-open"]


class AdaptiveLimit:
    """Calls at once: one more after each full round of answers, half after a sign of overload."""

    def __init__(self, start: float, most: int) -> None:
        self._value = max(1.0, min(start, float(most)))
        self._most = float(most)
        self._shrunk_at = -math.inf

    @property
    def calls(self) -> int:
        """How many calls it may have in flight now."""
        return int(self._value)

    def grow(self, in_flight: int) -> None:
        """Count an answer; it says something only of a limit that was (nearly) reached."""
        if in_flight + 1 >= self._value / 2:
            self._value = min(self._most, self._value + 1.0 / self._value)

    def shrink(self, sent_at: float, now: float) -> None:
        """Count an overload; calls sent before the last one tell of the same overload."""
        if sent_at > self._shrunk_at:
            self._value = max(1.0, self._value / 2.0)
            self._shrunk_at = now


class Circuit:
    """Gives an endpoint that fails again and again a rest, each twice as long as the last.

    After the rest one call tries it (half-open): an answer closes the circuit.
    """

    def __init__(self, failures: int, rest: float, most: float) -> None:
        self._allowed, self._first_rest, self._most = failures, rest, most
        self._failures = 0
        self._rest = rest
        self._open_until: float | None = None
        self._is_trying = False

    @property
    def state(self) -> CircuitState:
        """Closed is the good state: calls pass."""
        if self._open_until is None:
            return "closed"
        return "half-open" if self._is_trying else "open"

    @property
    def opens_at(self) -> float | None:
        """When the next try may start; None: calls pass, or a try is under way."""
        return None if self._is_trying else self._open_until

    def lets_pass(self, now: float) -> bool:
        """Whether a call may be sent now."""
        if self._open_until is None:
            return True
        return not self._is_trying and now >= self._open_until

    def sent(self) -> None:
        """Count a call that is sent: in an open circuit it is the try."""
        self._is_trying = self._open_until is not None

    def answered(self) -> None:
        """Count an answer."""
        self._failures, self._rest = 0, self._first_rest
        self._open_until, self._is_trying = None, False

    def failed(self, now: float, *, was_try: bool) -> None:
        """Count a failure; those of calls sent before the circuit opened change nothing more."""
        if self._open_until is not None and not was_try:
            return
        self._failures += 1
        if was_try:
            self._rest = min(2.0 * self._rest, self._most)
        if was_try or self._failures >= self._allowed:
            self._open_until, self._is_trying = now + self._rest, False

    def gave_up(self) -> None:
        """Count the end of a try; had it told nothing (it was cancelled), another may follow."""
        self._is_trying = False


class Throughput:
    """Tokens a second over about the last half minute."""

    _SPAN = 30.0

    def __init__(self, now: float) -> None:
        self._began = self._at = now
        self._tokens = 0.0

    def add(self, tokens: int, now: float) -> None:
        """Count tokens that arrived now."""
        self._tokens = self._decayed(now) + tokens
        self._at = now

    def rate(self, now: float) -> float:
        """Return tokens per second; a young meter is not held to be slow for it."""
        weight = self._SPAN * -math.expm1(-max(now - self._began, 1.0) / self._SPAN)
        return self._decayed(now) / weight

    def _decayed(self, now: float) -> float:
        return self._tokens * math.exp((self._at - now) / self._SPAN)
