"""The one URL of a swarm, for scripts that send no key and know nothing of fleets.

Whoever has the URL may ask: its first part is a secret as long as a key. Behind it a request waits
for a ready instance with room instead of being refused, because such scripts take a 503 for the
end; and `/generate` is answered whether or not the engine has it. Anything else is the router's.

    with Gateway(fleet.endpoints, fleet.key, translates=True) as gateway:
        AsyncInferenceClient(model=gateway.open_url)
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
from collections.abc import Callable, Sequence

from aiohttp import ClientResponse, web
from multidict import CIMultiDict
from yarl import URL

from ccai_core.errors import FleetError
from infra.client_protocol import CallError
from infra.endpoint import Endpoint
from infra.proxy import refuse
from infra.router import Router
from infra.swarm_generate import Generate, RefusedError, read_generate

logger = logging.getLogger(__name__)

_OPEN = web.RequestKey("open", bool)
_ASKED = web.RequestKey("asked", Generate)
_GENERATES = frozenset({"/", "/generate"})
_LOOK_S = 0.05
_SAID = 500


class Gateway(Router):
    """A router with a second, secret door that wants no key."""

    def __init__(
        self, endpoints: Callable[[], Sequence[Endpoint]], key: str, *, translates: bool
    ) -> None:
        """Prepare a gateway on 127.0.0.1.

        Args:
            endpoints: who is ready now.
            key: what the endpoints want, and requests that come by the ordinary door.
            translates: the engine's own `/generate` is not TGI's.
        """
        super().__init__(endpoints, key)
        self._secret = secrets.token_urlsafe(24)
        self.open_url = f"{self.url}/{self._secret}"
        """Where requests are answered without a key."""
        self._translates = translates
        self._at_work = 0
        self._turn = asyncio.Lock()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        return await super()._answer(self._let_in(request) or request)

    def _let_in(self, request: web.BaseRequest) -> web.BaseRequest | None:
        """Return the request as it is meant, without the secret; None: it came without."""
        _, _, target = request.rel_url.raw_path_qs.partition("/")
        given = target.partition("?")[0].partition("/")[0]
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._secret.encode()):
            return None
        rest = target.removeprefix(self._secret)
        headers = CIMultiDict(request.headers)
        # The hub's clients send the user's own token along; here it ends.
        headers["Authorization"] = f"Bearer {self._key}"
        path = URL(rest if rest.startswith("/") else f"/{rest}", encoded=True)
        inner = request.clone(rel_url=path, headers=headers)
        inner[_OPEN] = True
        return inner

    async def _route(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if not request.get(_OPEN):
            return await super()._route(request, body)
        broke = False
        while True:
            try:
                ready = await self._enter()
            except FleetError as error:
                return refuse(503, str(error)[:_SAID], close=True)
            try:
                answer = await self._ask_one(request, body, ready[0])
            except RefusedError as refusal:
                return refuse(422, str(refusal), close=False)
            finally:
                self._at_work -= 1
            if answer.prepared or answer.status not in (502, 503):
                return answer
            # 503: nobody has taken it. 502: it may be what engines die of, so not all may get it;
            # but one other, even where that one has to come up first.
            if answer.status == 502:
                if broke or len(ready) > 1:
                    return answer
                broke = True
            await asyncio.sleep(_LOOK_S)

    async def _enter(self) -> list[Endpoint]:
        """Wait, in order of arrival, until a ready instance has room; return those ready.

        Raises:
            FleetError: the fleet has given up.
        """
        async with self._turn:
            while True:
                ready = list(self._endpoints())
                if self._at_work < sum(each.max_parallel for each in ready):
                    self._at_work += 1
                    return ready
                await asyncio.sleep(_LOOK_S)

    async def _ask_one(
        self, request: web.BaseRequest, body: bytes, like: Endpoint
    ) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if self._translates and request.method == "POST" and path in _GENERATES:
            asked = read_generate(body, path, like)
            if asked is not None:
                return await super()._route(_instead(request, asked), asked.body)
        return await super()._route(request, body)

    async def _relay(self, request: web.BaseRequest, got: ClientResponse) -> web.StreamResponse:
        asked = request.get(_ASKED)
        if asked is None or got.status != 200:
            return await super()._relay(request, got)
        # One that breaks off meanwhile raises, and another instance is asked.
        answer = await got.read()
        try:
            return web.json_response(asked.reply(json.loads(answer)))
        except (CallError, ValueError) as error:
            logger.warning("An instance's answer cannot be used (%s).", error)
            return refuse(500, f"The engine's answer cannot be used: {error}.", close=False)


def _instead(request: web.BaseRequest, asked: Generate) -> web.BaseRequest:
    headers = {
        "Authorization": request.headers["Authorization"],
        "Content-Type": "application/json",
    }
    inner = request.clone(rel_url=URL("/v1/completions"), headers=headers)
    inner[_ASKED] = asked
    return inner
