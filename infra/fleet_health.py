"""Does an endpoint answer? A thread that looks at all of them every few seconds.

health = Health(key).start()
health.watch(endpoints)
[each for each in endpoints if health.answers(each)]
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout

from infra.endpoint import Endpoint
from infra.proxy import COUNTS, DRAIN

logger = logging.getLogger(__name__)

_EVERY_S = 2.0
_TIMEOUT_S = 5.0
# A server at work can be slow to answer; one that refuses a connection is not there.
_MISSES = 2


@dataclass(frozen=True)
class _Look:
    misses: int = _MISSES
    """How often it did not answer lately; one that was never looked at does not count."""
    in_flight: int = 0


class Health:
    """Remembers which endpoints answered when last looked at, and how busy they were."""

    def __init__(self, key: str, every: float = _EVERY_S) -> None:
        """Prepare to look each `every` seconds, with the fleet's key."""
        self._key, self._every = key, every
        self._watched: tuple[Endpoint, ...] = ()
        self._looks: dict[Endpoint, _Look] = {}
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet health", daemon=True)

    def start(self) -> Health:
        """Begin to look."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def watch(self, endpoints: Iterable[Endpoint]) -> None:
        """Look at these from now on; at new ones right away."""
        watched = tuple(endpoints)
        new = set(watched) - set(self._watched)
        self._watched = watched
        if new:
            self._wake.set()

    def answers(self, endpoint: Endpoint) -> bool:
        """Tell whether it answered when last looked at."""
        return self._looks.get(endpoint, _Look()).misses < _MISSES

    def in_flight(self, endpoint: Endpoint) -> int:
        """Return how many requests it was working on."""
        return self._looks.get(endpoint, _Look()).in_flight

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            watched = self._watched
            try:
                found = asyncio.run(look(watched, self._key)) if watched else {}
            except OSError as error:
                # Out of file handles, say. What was seen last stands until the next look.
                logger.warning("The fleet's endpoints cannot be looked at (%s); trying on.", error)
                found = {}
            for endpoint, now in found.items():
                self._note(endpoint, now)
            for gone in set(self._looks) - set(watched):
                del self._looks[gone]
            self._wake.wait(self._every)

    def _note(self, endpoint: Endpoint, now: _Look) -> None:
        before = self._looks.get(endpoint, _Look())
        misses = min(before.misses + now.misses, _MISSES) if now.misses else 0
        if before.misses < _MISSES == misses:
            logger.warning("Instance %s answers no more.", endpoint.instance)
        self._looks[endpoint] = replace(now, misses=misses)


def ask_to_end(endpoints: Iterable[Endpoint], key: str) -> set[Endpoint]:
    """Ask instances to end in order; return those that will."""
    return asyncio.run(_ask_to_end(tuple(endpoints), key))


async def _ask_to_end(endpoints: tuple[Endpoint, ...], key: str) -> set[Endpoint]:
    async with _session(key) as session:
        heard = await asyncio.gather(*(_hears(session, each) for each in endpoints))
    return {each for each, hears in zip(endpoints, heard, strict=True) if hears}


async def _hears(session: ClientSession, endpoint: Endpoint) -> bool:
    try:
        async with session.post(f"{endpoint.url}{DRAIN}", allow_redirects=False) as answer:
            return answer.status == 200
    except (ClientError, TimeoutError, OSError):
        return False


def _session(key: str) -> ClientSession:
    return ClientSession(
        timeout=ClientTimeout(total=_TIMEOUT_S), headers={"Authorization": f"Bearer {key}"}
    )


async def look(endpoints: tuple[Endpoint, ...], key: str) -> dict[Endpoint, _Look]:
    """Look at all of them once."""
    async with _session(key) as session:
        looks = await asyncio.gather(*(_look_at(session, each) for each in endpoints))
    return dict(zip(endpoints, looks, strict=True))


async def _look_at(session: ClientSession, endpoint: Endpoint) -> _Look:
    try:
        async with session.get(f"{endpoint.url}/health", allow_redirects=False) as well:
            if well.status != 200:
                return _Look()
        # Anybody may say "ok" at an address that was given up: only our own want this key.
        async with session.get(f"{endpoint.url}{COUNTS}", allow_redirects=False) as counts:
            if counts.status != 200:
                return _Look()
            return _Look(misses=0, in_flight=int((await counts.json())["in_flight"]))
    except ClientConnectorError:
        return _Look()
    except (ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        return _Look(misses=1)
