"""A thin authenticating proxy in front of an engine: no key, no answer.

Engines guard some of their routes and leave others open, or compare keys carelessly. Here every
request without exactly `Authorization: Bearer <the fleet's key>` gets 401, whatever its route and
method; only `GET /health` is everybody's, and the proxy answers it by itself. What has the key goes
on to the engine with the engine's own key, streamed both ways.

    proxy = Proxy(key)
    await proxy.start(listen("loopback"))
    proxy.forward_to("http://127.0.0.1:8000", inner_key)
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    web,
)
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request's body: a long conversation as token ids has some megabytes."""

COUNTS = "/ccai/counts"
"""Route of the proxy's own that answers with `Counts` as JSON; it wants the key as well."""

DRAIN = "/ccai/drain"
"""Route of the proxy's own: POST asks the instance to end in order; it wants the key as well."""

_RETRY_AFTER_S = "2"
_CONNECT_S = 10.0
_SHUTDOWN_S = 1.0
_TAIL = 8192
# Engines obey headers that a client has no business with (whom to route to, which rank to use),
# so what goes on is named, not what does not.
_PASSED_ON = frozenset(
    "accept accept-encoding content-encoding content-length content-type traceparent tracestate "
    "user-agent x-request-id".split()
)
_HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    "transfer-encoding upgrade".split()
)
_COMPLETION_TOKENS = re.compile(rb'"(?:completion_tokens|generated_tokens)"\s*:\s*(\d+)')


@dataclass
class Counts:
    """What went through since the start."""

    in_flight: int = 0
    requests: int = 0
    errors: int = 0
    """Answers of 500 and above, and those that broke off."""
    completion_tokens: int = 0
    """As far as answers say (streams only do when asked to)."""


class Proxy:
    """Serves on a socket; forwards to one engine at a time, or to none (503)."""

    def __init__(
        self,
        key: str,
        max_body: int = MAX_BODY,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a proxy that wants `key`; inside a running event loop.

        Args:
            key: the fleet's.
            max_body: bytes that a request's body may have.
            on_drain: called when somebody with the key asks the instance to end.
        """
        self.counts = Counts()
        self._expected = f"Bearer {key}".encode()
        self._max_body, self._on_drain = max_body, on_drain
        self._engine: tuple[URL, str] | None = None
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._started = time.monotonic()
        self._session: ClientSession | None = None
        # A server without routes: none can be forgotten. When a client leaves, its handler is
        # cancelled, which closes the connection to the engine and so ends the generation.
        self._runner = web.ServerRunner(
            web.Server(
                self._answer, handler_cancellation=True, auto_decompress=False, access_log=None
            ),
            shutdown_timeout=_SHUTDOWN_S,
        )

    async def start(self, server: socket.socket) -> None:
        """Answer on a listening socket, from now on."""
        self._session = ClientSession(
            # A new connection for each call: an idle one may be closed by the engine (vLLM: after
            # 5 s) at the very moment that the next call is sent on it, which would be a 502.
            connector=TCPConnector(limit=0, force_close=True),
            timeout=ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        await self._runner.setup()
        await web.SockSite(self._runner, server).start()

    def forward_to(self, url: str | None, inner_key: str = "") -> None:
        """Forward to the engine at `url` (None: to nobody), which wants `inner_key`."""
        self._engine = None if url is None else (URL(url), inner_key)

    async def drain(self, seconds: float) -> bool:
        """Refuse new requests; wait for those in flight, and tell whether all have ended."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
        return self._idle.is_set()

    async def stop(self) -> None:
        """Close the socket and every connection."""
        await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if request.method == "GET" and path == "/health":
            return self._health()
        if not self._has_key(request):
            # Closed, because nobody wants to read the body of a stranger's request.
            return refuse(401, "The fleet's key is missing or wrong.", close=True)
        if request.method == "GET" and path == COUNTS:
            return web.json_response(
                {**asdict(self.counts), "seconds": time.monotonic() - self._started}
            )
        if request.method == "POST" and path == DRAIN:
            self._on_drain()
            return web.json_response({"status": "draining"})
        if self._draining or self._engine is None:
            return refuse(503, "This instance takes no requests now.", close=self._draining)
        if (request.content_length or 0) > self._max_body:
            return refuse(413, f"A body has at most {self._max_body} bytes here.", close=True)
        if not path.startswith("/"):
            return refuse(400, "A request's target begins with a slash.", close=True)
        return await self._counted(request, *self._engine)

    def _has_key(self, request: web.BaseRequest) -> bool:
        given = request.headers.getall("Authorization", [])
        if len(given) != 1:
            return False
        return hmac.compare_digest(given[0].encode("utf-8", "surrogateescape"), self._expected)

    def _health(self) -> web.Response:
        if self._draining or self._engine is None:
            return refuse(503, "not ready", close=False)
        return web.json_response({"status": "ok"})

    async def _counted(self, request: web.BaseRequest, url: URL, key: str) -> web.StreamResponse:
        self.counts.requests += 1
        self.counts.in_flight += 1
        self._idle.clear()
        try:
            answer = await self._forward(request, url, key)
        finally:
            self.counts.in_flight -= 1
            if not self.counts.in_flight:
                self._idle.set()
        if answer.status >= 500:
            self.counts.errors += 1
        return answer

    async def _forward(self, request: web.BaseRequest, url: URL, key: str) -> web.StreamResponse:
        body = _Body(request, self._max_body)
        answer: web.StreamResponse | None = None
        try:
            async with self._ask(request, url, key, body) as got:
                answer = web.StreamResponse(
                    status=got.status, reason=got.reason, headers=outward(got.headers)
                )
                await answer.prepare(request)
                tail = b""
                async for chunk in got.content.iter_any():
                    tail = (tail + chunk)[-_TAIL:]
                    await answer.write(chunk)
                self._count_tokens(tail)
                await answer.write_eof()
        except (ClientError, TimeoutError, OSError) as error:
            if answer is None:
                return _explain(error, body)
            self._break_off(request, error)
        return answer

    def _ask(
        self, request: web.BaseRequest, url: URL, key: str, body: _Body
    ) -> AbstractAsyncContextManager[ClientResponse]:
        assert self._session is not None  # noqa: S101 - `start` made it before any request came
        # As it came, not decoded and encoded again; behind our own host and port whatever it says.
        target = URL(f"{url.origin()}{request.rel_url.raw_path_qs}", encoded=True)
        return self._session.request(
            request.method,
            target,
            headers=inward(request.headers, key),
            data=body.chunks() if request.can_read_body else None,
            allow_redirects=False,
        )

    def _count_tokens(self, tail: bytes) -> None:
        found = _COMPLETION_TOKENS.findall(tail)
        if found:
            self.counts.completion_tokens += int(found[-1])

    def _break_off(self, request: web.BaseRequest, error: BaseException) -> None:
        """Let the client see that its answer is not whole: an orderly end would look like one."""
        logger.warning("An answer broke off (%s: %s).", type(error).__name__, error)
        self.counts.errors += 1
        if request.transport is not None:
            request.transport.abort()


class _Body:
    """The body of a request, passed on piece by piece as long as it is not too long."""

    def __init__(self, request: web.BaseRequest, most: int) -> None:
        self._request = request
        self._most = most
        self.is_too_long = False

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._request.headers.get("Expect", "").lower() == "100-continue":
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = 0
        async for chunk in self._request.content.iter_any():
            length += len(chunk)
            if length > self._most:
                self.is_too_long = True
                raise ClientPayloadError
            yield chunk


def inward(headers: CIMultiDictProxy[str], key: str) -> CIMultiDict[str]:
    """Return the headers that go on to a server, with the key that it wants."""
    passed = CIMultiDict((k, v) for k, v in headers.items() if k.lower() in _PASSED_ON)
    passed["Authorization"] = f"Bearer {key}"
    return passed


def outward(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers of an answer that go back to the client."""
    named = {each.strip().lower() for each in headers.get("Connection", "").split(",")}
    dropped = _HOP_BY_HOP | named
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in dropped)


def _explain(error: BaseException, body: _Body) -> web.Response:
    if body.is_too_long:
        return refuse(413, "The body is too long.", close=True)
    if isinstance(error, ClientConnectorError):
        return refuse(503, "The engine cannot be reached.", close=True)
    return refuse(502, f"The engine did not answer ({type(error).__name__}).", close=True)


def refuse(status: int, reason: str, *, close: bool) -> web.Response:
    """Return an answer of our own, in the form in which engines give their errors."""
    answer = web.json_response({"error": {"message": reason, "code": status}}, status=status)
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        answer.headers["Retry-After"] = _RETRY_AFTER_S
    if close:
        answer.force_close()
    return answer
