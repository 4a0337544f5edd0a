"""One URL in front of a fleet, for tools that know nothing of fleets: lm-eval, inspect, curl.

Every request and answer passes as it is, to the ready instance with the fewest requests per place.
An instance that refuses the connection or is draining costs nothing: the request goes to the next
one. One that breaks off before its answer has begun is followed by one other, not by all: the
request itself may be what engines die of.

    with Router(fleet.endpoints, fleet.key) as router:
        print(router.url)
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    web,
)
from yarl import URL

from ccai_core.errors import FleetError
from infra.endpoint import Endpoint
from infra.proxy import MAX_BODY, inward, outward, refuse

logger = logging.getLogger(__name__)

_CONNECT_S = 5.0
_MOST_BREAKS = 2
_BACKLOG = 1024


class _UnavailableError(Exception):
    """An instance that is not there, or takes no requests now."""


class Router:
    """A reverse proxy with a changing list of upstreams, served from a thread of its own."""

    url: str
    """http://host:port of the router; set when it is entered."""

    def __init__(
        self,
        endpoints: Callable[[], Sequence[Endpoint]],
        key: str,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare a router.

        Args:
            endpoints: who is ready now; asked for every request.
            key: what a request must carry as its bearer token, and what the endpoints want.
            host: address to listen on.
            port: port to listen on; 0, or one that is taken: a free one.
        """
        self.requests: Counter[str] = Counter()
        """Requests that each instance was given."""
        self.errors = 0
        """Requests that no instance answered, or whose answer broke off."""
        self._endpoints, self._expected = endpoints, f"Bearer {key}".encode()
        self._key = key
        self._server = _listen(host, port)
        bound, number = self._server.getsockname()[:2]
        self.url = f"http://[{bound}]:{number}" if ":" in bound else f"http://{bound}:{number}"
        self._outstanding: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet router", daemon=True)

    def __enter__(self) -> Router:
        """Answer from now on."""
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the socket and every connection."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        # When a client leaves, its handler is cancelled, and the engine stops working for it.
        runner = web.ServerRunner(
            web.Server(self._answer, handler_cancellation=True, access_log=None),
            handle_signals=False,
        )
        async with ClientSession(
            connector=TCPConnector(limit=0),
            timeout=ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as self._session:
            await runner.setup()
            await web.SockSite(runner, self._server).start()
            self._started.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET" and request.rel_url.raw_path == "/health":
            return web.json_response({"status": "ok"}) if self._ready() else self._nobody()
        if not self._has_key(request):
            return refuse(401, "The fleet's key is missing or wrong.", close=True)
        if request.rel_url.path.startswith("/ccai/"):
            return refuse(
                404, "What an instance says of itself is not asked of the fleet.", close=True
            )
        if (request.content_length or 0) > MAX_BODY:
            return refuse(413, f"A body has at most {MAX_BODY} bytes here.", close=True)
        # Kept whole, so that it can be sent again. aiohttp's own limit is for forms alone.
        body = await request.content.read(MAX_BODY + 1)
        while len(body) <= MAX_BODY and not request.content.at_eof():
            body += await request.content.read(MAX_BODY + 1 - len(body))
        if len(body) > MAX_BODY:
            return refuse(413, f"A body has at most {MAX_BODY} bytes here.", close=True)
        return await self._route(request, body)

    def _has_key(self, request: web.BaseRequest) -> bool:
        given = request.headers.getall("Authorization", [])
        if len(given) != 1:
            return False
        return hmac.compare_digest(given[0].encode("utf-8", "surrogateescape"), self._expected)

    def _ready(self) -> list[Endpoint]:
        try:
            return list(self._endpoints())
        except FleetError as error:
            logger.warning("The router has nobody to ask: %s", error)
            return []

    async def _route(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        tried: set[str] = set()
        breaks = 0
        while breaks < _MOST_BREAKS:
            open_ones = [each for each in self._ready() if each.url not in tried]
            if not open_ones:
                break
            chosen = min(open_ones, key=self._load)
            tried.add(chosen.url)
            self.requests[chosen.instance] += 1
            self._outstanding[chosen.url] += 1
            try:
                return await self._pass_on(request, body, chosen)
            except _UnavailableError as error:
                logger.info("Instance %s takes no request now (%s).", chosen.instance, error)
            except (ClientError, TimeoutError, OSError) as error:
                logger.warning("Instance %s did not answer (%s).", chosen.instance, error)
                breaks += 1
            finally:
                self._outstanding[chosen.url] -= 1
        self.errors += 1
        return (
            self._nobody()
            if not breaks
            else refuse(502, "The instances that were asked broke off.", close=True)
        )

    def _load(self, endpoint: Endpoint) -> tuple[float, int]:
        # Equally loaded ones take turns.
        share = self._outstanding[endpoint.url] / endpoint.max_parallel
        return share, self.requests[endpoint.instance]

    async def _pass_on(
        self, request: web.BaseRequest, body: bytes, endpoint: Endpoint
    ) -> web.StreamResponse:
        """Return the endpoint's answer.

        Raises:
            _UnavailableError: it does not take requests, and has not seen this one.
            ClientError: it broke off before its answer had begun.
        """
        try:
            got = await self._ask(request, body, endpoint)
        except ClientConnectorError as error:
            raise _UnavailableError(str(error)) from None
        async with got:
            if got.status == 503:
                raise _UnavailableError("503")
            if got.status == 502:
                raise ClientError("its engine broke off")
            return await self._relay(request, got)

    async def _ask(
        self, request: web.BaseRequest, body: bytes, endpoint: Endpoint
    ) -> ClientResponse:
        # As it came, not decoded and encoded again; behind the instance's own host and port.
        target = URL(f"{endpoint.url}{request.rel_url.raw_path_qs}", encoded=True)
        headers = inward(request.headers, self._key)
        # A body that came in pieces goes on in one.
        headers.popall("Content-Length", None)
        return await self._session.request(
            request.method, target, headers=headers, data=body or None, allow_redirects=False
        )

    async def _relay(self, request: web.BaseRequest, got: ClientResponse) -> web.StreamResponse:
        answer = web.StreamResponse(
            status=got.status, reason=got.reason, headers=outward(got.headers)
        )
        await answer.prepare(request)
        try:
            async for chunk in got.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
        except (ClientError, TimeoutError, OSError) as error:
            # An orderly end would look like a whole answer.
            logger.warning("An answer broke off (%s: %s).", type(error).__name__, error)
            self.errors += 1
            if request.transport is not None:
                request.transport.abort()
        return answer

    def _nobody(self) -> web.Response:
        return refuse(503, "No instance of the fleet is ready to answer.", close=False)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in dict.fromkeys((port, 0)):
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, number))
            server.listen(_BACKLOG)
        except OSError as error:
            server.close()
            logger.warning("The router cannot listen at %s port %d: %s.", host, number, error)
            continue
        return server
    raise FleetError(f"The router cannot listen at {host}. Name an address of this machine.")
