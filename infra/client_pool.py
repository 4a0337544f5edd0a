"""Which endpoint a call goes to, as endpoints come and go.

A call goes to the endpoint that had its episode's earlier calls, unless that is ill or much more
loaded than another; then to the least loaded. Where there is no room it waits.

    server, call = await pool.take("episode 7", avoid=set(), attempts=0)
    ...
    pool.give_back(server, call)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

from ccai_core.errors import EngineError, FleetError
from infra.client_connection import Connection
from infra.client_queue import Place, Queue, Waiter
from infra.client_server import ClientConfig, Sent, Server
from infra.endpoint import Endpoint

logger = logging.getLogger(__name__)

_EPISODES = 100_000  # remembered; the longest unused is forgotten
# Calls that wait although nobody has room for them yet: a few, and a part of all places.
_RESERVE, _RESERVE_PART = 4, 32
_ASKING = 0.05  # part of the time that may go into asking who belongs to the fleet


class Pool:
    """The endpoints of a fleet and the places there."""

    def __init__(
        self,
        endpoints: Callable[[], Sequence[Endpoint]],
        connect: Callable[[Endpoint], Connection],
        config: ClientConfig,
    ) -> None:
        self._endpoints, self._connect, self._config = endpoints, connect, config
        self._known: tuple[Endpoint, ...] = ()
        self._servers: dict[Endpoint, Server] = {}
        self._homes: OrderedDict[str, Server] = OrderedDict()
        self._queue = Queue()
        self._sent = 0
        self._ask_again_at = 0.0
        self._unusable_since = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def servers(self) -> tuple[Server, ...]:
        """Those known now, ones about to leave included."""
        return tuple(self._servers.values())

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._queue)

    @property
    def room(self) -> int | None:
        """How many calls without a home would keep all places taken; None: nobody is known."""
        usable = [each for each in self._servers.values() if each.is_usable]
        if not usable:
            return None
        places = sum(each.limit.calls for each in usable)
        free = sum(max(0, each.limit.calls - len(each.calls)) for each in usable)
        return free + _RESERVE + places // _RESERVE_PART - self._queue.homeless

    def has_another(self, avoid: Collection[Server]) -> bool:
        """Whether an endpoint that is not in `avoid` would take calls."""
        return self._is_another_ready(avoid, time.monotonic())

    async def take(self, affinity: str | None, avoid: Collection[Server], attempts: int) -> Place:
        """Wait for a place at an endpoint, one not in `avoid` if there is a choice.

        Raises:
            FleetError: no endpoint could answer for `wait_seconds`.
            EngineError: the client is closed.
        """
        if self._is_closed:
            raise EngineError("This client is closed; make calls inside `async with Client(...)`.")
        now = time.monotonic()
        if now >= self._ask_again_at:
            self._refresh(now)
            self._fill_all(now)
        home = self._homes.get(affinity) if affinity is not None else None
        if home is not None and (home in avoid or not home.is_ready(now)):
            home = None
        server = self._choose(home, avoid, now)
        self._arm(now)
        if server is not None:
            place = self._place_at(server, now)
        else:
            place = await self._wait(self._queue.add(home, avoid, attempts, now))
        if affinity is not None:
            self._remember(affinity, place[0])
        return place

    def give_back(self, server: Server, call: Sent) -> None:
        """Return a place; whoever waits gets it."""
        now = time.monotonic()
        server.end(call)
        if call.has_failed or not server.is_ready(now):
            self._fill_all(now)
            self._arm(now, again=True)
        else:
            self._fill(server, now)

    async def aclose(self) -> None:
        """Let nobody wait any longer, cut what is in flight and close all connections."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        error = EngineError("The client was closed while this call waited for an endpoint.")
        self._queue.fail(error, since=time.monotonic())
        for server in self.servers:
            self._forget(server)
        await asyncio.gather(*self._closing)

    # -- places ---------------------------------------------------------------------------------

    def _choose(self, home: Server | None, avoid: Collection[Server], now: float) -> Server | None:
        """Return where a call may go at once; None: it waits."""
        rooms = [each for each in self._servers.values() if each.has_room(now)]
        others = [each for each in rooms if each not in avoid]
        if not others and not self._is_another_ready(avoid, now):
            others = rooms
        if not others:
            return None
        least = min(others, key=lambda each: (each.load, each.last_sent))
        if home is None or self._is_much_more_loaded(home, least):
            return least
        return home if home in others else None

    def _is_much_more_loaded(self, home: Server, other: Server) -> bool:
        return home.load - other.load > self._config.slack

    def _is_another_ready(self, avoid: Collection[Server], now: float) -> bool:
        return any(each.is_ready(now) and each not in avoid for each in self._servers.values())

    def _place_at(self, server: Server, now: float) -> Place:
        self._sent += 1
        server.last_sent = self._sent
        return server, server.begin(now)

    def _remember(self, affinity: str, server: Server) -> None:
        self._homes[affinity] = server
        self._homes.move_to_end(affinity)
        if len(self._homes) > _EPISODES:
            self._homes.popitem(last=False)

    async def _wait(self, waiter: Waiter) -> Place:
        place = waiter.place
        try:
            return await place
        except asyncio.CancelledError:
            self._queue.drop(waiter)
            if place.done() and not place.cancelled() and place.exception() is None:
                self.give_back(*place.result())  # it was given in the very moment of the cancel
            raise

    def _fill(self, server: Server, now: float) -> None:
        """Give the places that a server has to those that wait for them."""

        def may_move(home: Server) -> bool:
            return not home.is_ready(now) or self._is_much_more_loaded(home, server)

        def shuns(waiter: Waiter) -> bool:
            return server in waiter.avoid and self._is_another_ready(waiter.avoid, now)

        while self._queue and server.has_room(now):
            waiter = self._queue.first_for(server, may_move, shuns)
            if waiter is None:
                return
            self._queue.drop(waiter)
            waiter.place.set_result(self._place_at(server, now))

    def _fill_all(self, now: float) -> None:
        if self._queue:
            for server in sorted(self._servers.values(), key=lambda each: each.load):
                self._fill(server, now)

    # -- the fleet ------------------------------------------------------------------------------

    def _refresh(self, now: float) -> None:
        """Look who belongs to the fleet now."""
        try:
            self._known = tuple(self._endpoints())
        except OSError as error:
            # A shared disk that is away for a moment says nothing of the servers.
            logger.warning("The fleet's endpoints cannot be read now (%s).", error)
        asked = time.monotonic()
        # Before each choice where that is quick; a slow disk is not to be what calls wait for.
        self._ask_again_at = asked + min((asked - now) / _ASKING, self._config.refresh_seconds)
        if self._known != tuple(self._servers):
            self._join_and_leave(now)
        if any(each.is_usable for each in self._servers.values()):
            self._unusable_since = now
        elif now - self._unusable_since > self._patience:
            self._queue.fail(self._nobody(), since=now - self._patience)

    def _join_and_leave(self, now: float) -> None:
        for endpoint in self._known:
            if endpoint not in self._servers:
                connection = self._connect(endpoint)
                self._servers[endpoint] = Server(endpoint, connection, self._config, now)
            self._servers[endpoint].left_at = None
        for server in self.servers:
            if server.endpoint in self._known:
                continue
            if server.left_at is None:
                server.left_at = now
            if now - server.left_at >= self._config.leave_seconds:
                self._forget(server)

    def _forget(self, server: Server) -> None:
        del self._servers[server.endpoint]
        server.leave()
        closing = asyncio.get_running_loop().create_task(server.connection.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _arm(self, now: float, *, again: bool = False) -> None:
        """Set the clock for the next look; anew if something may happen sooner than thought."""
        if self._timer is not None and again:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(self._pause(now), self._tick)

    def _pause(self, now: float) -> float:
        """Seconds until something may have changed by itself."""
        moments = [now + self._config.refresh_seconds]
        for server in self._servers.values():
            moments += [server.rests_until, server.circuit.opens_at or 0.0]
        return min(each for each in moments if each > now) - now

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        try:
            self._refresh(now)
        except Exception as error:  # noqa: BLE001 - each call that waits raises it
            self._queue.fail(error, since=now)
        self._fill_all(now)
        if self._queue or any(each.calls or each.left_at for each in self._servers.values()):
            self._arm(now)

    @property
    def _patience(self) -> float:
        """How long there may be nobody that answers: one that queues is none that is ill."""
        absent = self._config.absent_seconds
        return self._config.wait_seconds if self._known or absent is None else absent

    def _nobody(self) -> FleetError:
        states = "; ".join(each.describe() for each in self._servers.values())
        return FleetError(
            f"The fleet cannot answer: for {self._patience:.0f} s there was no endpoint "
            f"that does ({states or 'none is registered'}). See the logs of its instances, or "
            "`python -m infra.fleet status`."
        )
