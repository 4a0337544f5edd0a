"""Calls that wait for a place: those at home there first, in order of arrival.

waiter = queue.add(home, avoid, attempts, now)
server, call = await waiter.place
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from infra.client_server import Sent, Server

Place = tuple[Server, Sent]


@dataclass(eq=False)
class Waiter:
    """One call that waits, and where it wants to go and where not."""

    order: int
    since: float
    home: Server | None
    avoid: Collection[Server]
    attempts: int
    place: asyncio.Future[Place]


class Queue:
    """Waiting calls, by the endpoint that their episode is at home on (None: on any)."""

    def __init__(self) -> None:
        self._by_home: dict[Server | None, deque[Waiter]] = {}
        self._order = 0

    def __len__(self) -> int:
        return sum(not each.place.done() for calls in self._by_home.values() for each in calls)

    @property
    def homeless(self) -> int:
        """How many calls wait that are at home nowhere."""
        return len(self._by_home.get(None, ()))

    def __bool__(self) -> bool:
        return bool(self._by_home)

    def add(
        self, home: Server | None, avoid: Collection[Server], attempts: int, now: float
    ) -> Waiter:
        """Put a call at the end."""
        self._order += 1
        place: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        waiter = Waiter(self._order, now, home, avoid, attempts, place)
        self._by_home.setdefault(home, deque()).append(waiter)
        return waiter

    def drop(self, waiter: Waiter) -> None:
        """Take a call out, if it is still in."""
        calls = self._by_home.get(waiter.home)
        if calls is not None and waiter in calls:
            calls.remove(waiter)
            if not calls:
                del self._by_home[waiter.home]

    def first_for(
        self,
        server: Server,
        may_move: Callable[[Server], bool],
        shuns: Callable[[Waiter], bool],
    ) -> Waiter | None:
        """Return the call to which a place at `server` goes.

        Episodes that are at home somewhere are finished before others begin. A try of an endpoint
        that failed goes to the call that was tried least: so no single call uses up its attempts on
        it.

        Args:
            server: has room.
            may_move: whether calls at home on that other endpoint go to this one.
            shuns: whether a call would rather wait than go to this one.
        """
        is_try = server.circuit.state != "closed"
        found: list[Waiter] = []
        for home, calls in self._by_home.items():
            if home is not None and home is not server and not may_move(home):
                continue
            willing = (each for each in calls if not each.place.done() and not shuns(each))
            if is_try:
                found += willing
            elif (first := next(willing, None)) is not None:
                found.append(first)
        return min(
            found,
            key=lambda each: (each.attempts if is_try else 0, each.home is None, each.order),
            default=None,
        )

    def fail(self, error: Exception, since: float) -> None:
        """Raise an error in every call that has waited since then or longer."""
        for waiter in [each for calls in self._by_home.values() for each in calls]:
            if waiter.since <= since:
                if not waiter.place.done():
                    waiter.place.set_exception(error)
                self.drop(waiter)
