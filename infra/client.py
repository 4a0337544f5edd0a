"""Ask a fleet: one client for all its endpoints, however they come and go.

Calls are spread over the endpoints, an episode's calls stay on one, an overloaded endpoint gets
fewer and a failing one none for a while; a call that fails is sent to another. See docs/client.md.

    async with Client(fleet.endpoints, fleet.key) as client:
        answer = await client.chat(ChatRequest(messages=(...,)), affinity="episode 7")
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from ccai_core.errors import EngineError, FleetError
from infra.client_connection import Connection, Render
from infra.client_pool import Pool
from infra.client_protocol import (
    CallError,
    ChatAnswer,
    ChatMessage,
    ChatRequest,
    Grammar,
    TokenLogprob,
)
from infra.client_server import ClientConfig, EndpointStatistics, Sent, Server
from infra.endpoint import Endpoint

__all__ = [
    "ChatAnswer",
    "ChatMessage",
    "ChatRequest",
    "Client",
    "ClientConfig",
    "ClientStatistics",
    "EndpointStatistics",
    "Grammar",
    "TokenLogprob",
]

T = TypeVar("T")


@dataclass(frozen=True)
class ClientStatistics:
    """What a client has done, and a row for each endpoint it knows."""

    endpoints: tuple[EndpointStatistics, ...]
    waiting: int
    answered: int
    failed: int
    retried: int
    errors: Mapping[str, int]
    """Failed attempts, by kind."""


class Client:
    """Calls to a fleet, as an async context manager; within one event loop."""

    def __init__(
        self,
        endpoints: Callable[[], Sequence[Endpoint]],
        key: str,
        config: ClientConfig | None = None,
        render: Render | None = None,
    ) -> None:
        """Prepare; nothing is sent before the first call.

        Args:
            endpoints: returns those ready now; asked often, so it should be quick.
            key: the fleet's API key.
            config: patience and eagerness.
            render: puts the model's chat template on messages: only TGI may need it.

        Raises:
            FleetError: the key is empty.
        """
        if not key:
            raise FleetError("A fleet is not asked without its API key; see infra.endpoint.")
        self._config = config or ClientConfig()
        connect_seconds = self._config.connect_seconds

        def connect(endpoint: Endpoint) -> Connection:
            return Connection(endpoint, key, connect_seconds, render)

        self._pool = Pool(endpoints, connect, self._config)
        self._answered = self._failed = self._retried = 0
        self._errors: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.aclose()

    async def chat(self, request: ChatRequest, affinity: str | None = None) -> ChatAnswer:
        """Answer one request; calls with equal `affinity` go to one endpoint where possible.

        A call that failed on every attempt is an answer with finish_reason 'error'.

        Raises:
            EngineError: the fleet's engine cannot do what is asked for.
            FleetError: the key is refused, or no endpoint answers for `wait_seconds`.
        """
        try:
            answer, attempts = await self._call(
                lambda connection: connection.chat(request),
                self._config.timeout(request.max_tokens),
                lambda answer: answer.completion_tokens,
                affinity,
            )
        except _GivenUpError as error:
            return ChatAnswer(
                text="", finish_reason="error", attempts=error.attempts, reason=str(error)
            )
        return answer if attempts == 1 else answer.model_copy(update={"attempts": attempts})

    async def prompt_logprobs(
        self, token_ids: Sequence[int], affinity: str | None = None
    ) -> list[float | None]:
        """Return the log-probability of each token given those before it; the first has none.

        Raises:
            EngineError: the engine cannot, refuses, or failed on every attempt.
            FleetError: as for `chat`.
        """
        if not token_ids:
            raise EngineError("There are no tokens to weigh.")
        try:
            values, _ = await self._call(
                lambda connection: connection.prompt_logprobs(token_ids),
                self._config.timeout(len(token_ids)),
                len,
                affinity,
            )
        except _GivenUpError as error:
            raise EngineError(
                f"A prompt of {len(token_ids)} tokens could not be weighed: {error}"
            ) from None
        return values

    @property
    def room(self) -> int | None:
        """How many calls that are at home nowhere yet may come; None: no endpoint is known yet.

        Some more than there are free places: whoever waits takes the next one without delay.
        """
        return self._pool.room

    def statistics(self) -> ClientStatistics:
        """Return what was done so far, for tables."""
        now = time.monotonic()
        return ClientStatistics(
            endpoints=tuple(each.statistics(now) for each in self._pool.servers),
            waiting=self._pool.waiting,
            answered=self._answered,
            failed=self._failed,
            retried=self._retried,
            errors=dict(self._errors),
        )

    async def _call(
        self,
        send: Callable[[Connection], Awaitable[T]],
        timeout: float,
        tokens: Callable[[T], int],
        affinity: str | None,
    ) -> tuple[T, int]:
        """Send until there is an answer; return it and how often it was sent."""
        avoid: set[Server] = set()
        failures: list[str] = []
        while True:
            server, call = await self._pool.take(affinity, avoid, len(failures))
            try:
                answer = await _attempt(server, call, send, timeout)
            except CallError as error:
                server.failed(call, error, time.monotonic())
                self._errors[error.kind] += 1
                failure = error
            else:
                server.answered(call, tokens(answer), time.monotonic())
                self._answered += 1
                return answer, len(failures) + 1
            finally:
                self._pool.give_back(server, call)
            # Elsewhere, and where it was not yet; when it was everywhere, not where it was last.
            avoid = avoid | {server} if self._pool.has_another(avoid | {server}) else {server}
            self._judge(failure, server.endpoint, failures)
            if failure.kind != "left":
                await asyncio.sleep(self._backoff(len(failures)))

    def _judge(self, failure: CallError, endpoint: Endpoint, failures: list[str]) -> None:
        """Raise if there is no use in another attempt."""
        if failure.kind == "key":
            raise FleetError(
                f"{endpoint.url} refuses the fleet's key ({failure.reason}). Was the fleet started "
                "anew? Read its key again; the endpoint wants the one whose id is "
                f"{endpoint.key_id!r}."
            )
        if failure.kind != "left":
            failures.append(f"{endpoint.url}: {failure.reason}")
        if failure.kind == "caller" or len(failures) >= self._config.attempts:
            self._failed += 1
            raise _GivenUpError(failures)
        self._retried += 1

    def _backoff(self, failures: int) -> float:
        longest = self._config.backoff_seconds * 2.0 ** (failures - 1)
        return min(longest, self._config.max_backoff_seconds) * random.uniform(0.5, 1.0)


class _GivenUpError(Exception):
    """No attempt succeeded, and there is no further one."""

    def __init__(self, failures: Sequence[str]) -> None:
        last = failures[-1]
        super().__init__(last if len(failures) == 1 else f"{last} (attempt {len(failures)})")
        self.attempts = len(failures)


async def _attempt(
    server: Server, call: Sent, send: Callable[[Connection], Awaitable[Any]], timeout: float
) -> Any:
    """Send once, within a time limit that also ends when the endpoint leaves the fleet."""
    try:
        async with asyncio.timeout(timeout) as call.deadline:
            return await send(server.connection)
    except TimeoutError:
        if server.is_gone:
            raise CallError("left", "it left the fleet") from None
        raise CallError("timeout", f"no answer within {timeout:.0f} s") from None
    finally:
        call.deadline = None
