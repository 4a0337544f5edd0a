"""An endpoint as its client sees it: what is in flight there, what it has done, how it does.

server.begin(call, now)
server.answered(call, tokens=42, now=now)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pydantic import Field

from ccai_core.config import Config
from infra.client_connection import Connection
from infra.client_limits import AdaptiveLimit, Circuit, CircuitState, Throughput
from infra.client_protocol import CallError
from infra.endpoint import Endpoint


class ClientConfig(Config):
    """How patient and how eager a client is."""

    attempts: int = Field(6, ge=1, description="Times a call is sent before it is given up.")
    backoff_seconds: float = Field(
        0.25, ge=0, description="Pause before the second attempt; doubles, with jitter."
    )
    max_backoff_seconds: float = Field(15.0, ge=0, description="Longest such pause.")
    connect_seconds: float = Field(10.0, gt=0, description="Longest wait for a connection.")
    timeout_seconds: float = Field(60.0, gt=0, description="Longest wait for any call, and ...")
    seconds_per_token: float = Field(0.5, ge=0, description="... so much more for each token.")
    wait_seconds: float = Field(
        900.0, gt=0, description="Longest wait while no endpoint at all can answer."
    )
    absent_seconds: float | None = Field(
        None, gt=0, description="Longest wait while there is none at all; none: wait_seconds."
    )
    refresh_seconds: float = Field(
        1.0, gt=0, description="How often, at the least, the fleet is asked for its endpoints."
    )
    leave_seconds: float = Field(
        5.0, ge=0, description="How long calls may still end on an endpoint that left the fleet."
    )
    share: float = Field(
        1.0, gt=0, le=1, description="Part of an endpoint's max_parallel to start with."
    )
    slack: float = Field(
        0.25, ge=0, description="Load (0 to 1) an episode's endpoint may have more than another."
    )
    failures: int = Field(3, ge=1, description="Failures in a row that give an endpoint a rest.")
    rest_seconds: float = Field(1.0, gt=0, description="The first rest; each next is twice that.")
    max_rest_seconds: float = Field(60.0, gt=0, description="Longest rest, Retry-After included.")

    def timeout(self, tokens: int) -> float:
        """Return the longest time one attempt may take."""
        return self.timeout_seconds + self.seconds_per_token * tokens


@dataclass(frozen=True)
class EndpointStatistics:
    """One row of a table of endpoints."""

    instance: str
    url: str
    in_flight: int
    limit: int
    answered: int
    failed: int
    tokens_per_second: float
    circuit: CircuitState
    rests_seconds: float


@dataclass(eq=False)
class Sent:
    """One call in flight: since when, and the deadline by which it can be cut."""

    at: float
    is_try: bool
    has_failed: bool = False
    deadline: asyncio.Timeout | None = None


@dataclass(eq=False)
class Server:
    """An endpoint, its connection and its record."""

    endpoint: Endpoint
    connection: Connection
    config: ClientConfig
    began: float
    left_at: float | None = None
    is_gone: bool = False
    rests_until: float = 0.0
    answers: int = 0
    failures: int = 0
    last_failure: str = ""
    last_sent: int = 0
    calls: set[Sent] = field(default_factory=set)

    def __post_init__(self) -> None:
        most, config = self.endpoint.max_parallel, self.config
        self.limit = AdaptiveLimit(config.share * most, most)
        self.circuit = Circuit(config.failures, config.rest_seconds, config.max_rest_seconds)
        self.throughput = Throughput(self.began)

    @property
    def load(self) -> float:
        """Calls in flight, as a part of what it may have."""
        return len(self.calls) / self.limit.calls

    @property
    def is_usable(self) -> bool:
        """Whether it belongs to the fleet and answers, be it busy."""
        return self.left_at is None and self.circuit.state == "closed"

    def is_ready(self, now: float) -> bool:
        """Whether it is usable and has not asked to be left alone."""
        return self.is_usable and now >= self.rests_until

    def has_room(self, now: float) -> bool:
        """Whether a call may be sent there now."""
        return (
            self.left_at is None
            and len(self.calls) < self.limit.calls
            and now >= self.rests_until
            and self.circuit.lets_pass(now)
        )

    def begin(self, now: float) -> Sent:
        """Take a place for a call."""
        self.circuit.sent()
        call = Sent(now, is_try=self.circuit.state == "half-open")
        self.calls.add(call)
        return call

    def answered(self, call: Sent, tokens: int, now: float) -> None:
        """Record an answer."""
        self.limit.grow(len(self.calls))
        self.circuit.answered()
        self.throughput.add(tokens, now)
        self.answers += 1

    def failed(self, call: Sent, error: CallError, now: float) -> None:
        """Record a failed attempt, and draw the conclusion that its kind allows."""
        call.has_failed = True
        if error.kind in ("caller", "key"):  # it answers, though not with what was wanted
            self.circuit.answered()
            return
        if error.kind == "left":
            return
        self.failures += 1
        self.last_failure = error.reason
        if error.kind in ("busy", "overloaded", "timeout"):
            self.limit.shrink(call.at, now)
        if error.retry_after is not None:
            rest = min(error.retry_after, self.config.max_rest_seconds)
            self.rests_until = max(self.rests_until, now + rest)
        if error.kind == "busy":
            self.circuit.answered()
        else:
            self.circuit.failed(now, was_try=call.is_try)

    def end(self, call: Sent) -> None:
        """Give the place back, however the call ended."""
        self.calls.discard(call)
        if call.is_try:
            self.circuit.gave_up()

    def leave(self) -> None:
        """End its membership: calls in flight are cut, and go elsewhere."""
        self.is_gone = True
        for call in self.calls:
            if call.deadline is not None and not call.deadline.expired():
                call.deadline.reschedule(0.0)

    def describe(self) -> str:
        """Return its state in words, for an error's message."""
        state = "left" if self.left_at is not None else f"circuit {self.circuit.state}"
        return (
            f"{self.endpoint.instance} at {self.endpoint.url}: {state}, {self.failures} failures"
            + (f", the last: {self.last_failure}" if self.last_failure else "")
        )

    def statistics(self, now: float) -> EndpointStatistics:
        """Return its row of a table."""
        return EndpointStatistics(
            instance=self.endpoint.instance,
            url=self.endpoint.url,
            in_flight=len(self.calls),
            limit=self.limit.calls,
            answered=self.answers,
            failed=self.failures,
            tokens_per_second=self.throughput.rate(now),
            circuit=self.circuit.state,
            rests_seconds=max(0.0, (self.circuit.opens_at or self.rests_until) - now),
        )
