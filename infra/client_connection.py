"""One endpoint's connection: what is asked, over aiohttp's connections, and what comes back.

OpenAI's routes are spoken here. TGI's own route is huggingface_hub's client's, which knows it best;
what it sends goes through `post` too, because the hub's own transport takes at most 100
connections, obeys proxies of the environment and HF_HUB_OFFLINE, would send the user's hub token
where no key is given, and follows redirects. (Chat calls went through the hub as well. Its checks
and its classes took a fifth of a driver's time, and its httpx a half.)

    answer = await Connection(endpoint, key, connect_seconds=5.0).chat(request)
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, NoReturn, get_args

import aiohttp
from huggingface_hub import AsyncInferenceClient

from ccai_core.errors import EngineError
from infra.client_protocol import CallError, ChatAnswer, ChatMessage, ChatRequest
from infra.client_wire import (
    chat_fields,
    completion_fields,
    generate_fields,
    read_chat,
    read_completion,
    read_generated,
    read_scores,
    scoring_fields,
)
from infra.cluster import EngineName
from infra.endpoint import Endpoint
from infra.engines import Capability, engine

Render = Callable[[Sequence[ChatMessage]], str]
"""Puts a model's chat template on a conversation, without the token that starts every text."""

_KEEP_IDLE_S = 4.0  # uvicorn hangs up after 5 s; a call must not meet that moment
_TGI_WITH_CHAT = (1, 4)
# One for all: json.dumps with options makes an encoder at each call.
_JSON = json.JSONEncoder(ensure_ascii=False)
_SHOWN = 300  # characters of a server's complaint


class Connection:
    """Sends calls to one endpoint, over connections that are kept and shared."""

    def __init__(
        self, endpoint: Endpoint, key: str, connect_seconds: float, render: Render | None = None
    ) -> None:
        self.endpoint = endpoint
        self._render = render
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        # How long a call may take is its caller's to say: here only how long a door stays shut.
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._hub = _Hub(self.post, model=f"{endpoint.url}/generate", api_key=key)
        self._tgi_version: tuple[int, ...] | None = None

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """Answer one request over the route that fits it and the engine.

        Raises:
            CallError: this attempt failed.
            EngineError: this engine has no way to answer it.
        """
        self._refuse_what_it_cannot(request)
        if request.prompt:
            return await self._complete(request, request.prompt)
        if self.endpoint.engine == "tgi" and not await self._tgi_can_chat(request):
            return await self._generate(request, self._rendered(request))
        body = chat_fields(request, self.endpoint)
        data = _json(await self.post(f"{self.endpoint.url}/v1/chat/completions", body))
        return read_chat(data, request, self.endpoint)

    async def prompt_logprobs(self, token_ids: Sequence[int]) -> list[float | None]:
        """Weigh the tokens of a prompt.

        Raises:
            CallError: this attempt failed.
            EngineError: this engine cannot.
        """
        _refuse(self.endpoint.engine, frozenset({"scoring"}))
        body = scoring_fields(token_ids, self.endpoint.model)
        return read_scores(await self._completions(body), len(token_ids))

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, body: Any) -> bytes:
        """Send JSON and return the answer's body.

        Raises:
            CallError: there is no answer, or it is not a 200.
        """
        return await self._send("POST", url, _JSON.encode(body).encode())

    def _refuse_what_it_cannot(self, request: ChatRequest) -> None:
        name, needs = self.endpoint.engine, request.needs
        if name == "tgi" and (request.prompt or self._render is not None):
            needs -= {"repetition_penalty"}  # which its own route knows
        _refuse(name, needs)
        if request.grammar is None or name in ("tgi", "vllm"):
            return
        if request.prompt or (request.grammar.regex is not None and name == "llamacpp"):
            what = "a grammar for a raw prompt" if request.prompt else "a regular expression"
            raise EngineError(f"The engine {name!r} of this fleet cannot take {what}.")

    async def _complete(self, request: ChatRequest, prompt: str) -> ChatAnswer:
        if self.endpoint.engine == "tgi":
            return await self._generate(request, prompt)
        data = await self._completions(completion_fields(request, self.endpoint))
        return read_completion(data, request, self.endpoint)

    async def _generate(self, request: ChatRequest, prompt: str) -> ChatAnswer:
        output = await _read(self._hub.text_generation(prompt, **generate_fields(request)))
        return read_generated(output, request, self.endpoint)

    async def _completions(self, body: dict[str, Any]) -> Any:
        return _json(await self.post(f"{self.endpoint.url}/v1/completions", body))

    async def _tgi_can_chat(self, request: ChatRequest) -> bool:
        """Whether TGI's chat route is there and can do it: it knows no repetition penalty."""
        if self._tgi_version is None:
            info = _json(await self._send("GET", f"{self.endpoint.url}/info", None))
            version = str(info.get("version", "")) if isinstance(info, dict) else ""
            found = re.match(r"(\d+)\.(\d+)", version)
            if found is None:
                raise CallError("broken", f"/info tells no version of TGI ({version!r:.40})")
            self._tgi_version = tuple(map(int, found.groups()))
        return self._tgi_version >= _TGI_WITH_CHAT and request.repetition_penalty == 1.0

    def _rendered(self, request: ChatRequest) -> str:
        if self._render is None:
            raise EngineError(
                f"{self.endpoint.url}: this TGI takes messages only through /generate (it is older "
                "than 1.4, or a repetition penalty is asked for), which needs the chat template "
                "put on by us. Give Client(render=...), or repetition_penalty=1 and TGI >= 1.4."
            )
        return self._render(request.messages)

    async def _send(self, method: str, url: str, content: bytes | None) -> bytes:
        try:
            async with self._http.request(
                method, url, data=content, allow_redirects=False
            ) as response:
                body = await response.read()
        except aiohttp.ServerTimeoutError:
            raise CallError("unavailable", "it could not be reached in time") from None
        except (aiohttp.ClientError, OSError) as error:
            what = str(error) or type(error).__name__
            raise CallError("unavailable", f"the connection failed ({what:.{_SHOWN}})") from None
        if response.status != HTTPStatus.OK:
            _refuse_status(_Refusal(response.status, response.headers, body))
        return body

    @property
    def _http(self) -> aiohttp.ClientSession:
        """The connections: aiohttp's, because httpx looks through all of them at each call."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_IDLE_S),
                headers=self._headers,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


class _Refusal(NamedTuple):
    """An answer that is not a 200."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def _refuse(name: EngineName, needs: frozenset[Capability]) -> None:
    """Raise an EngineError that says which engines can do what this one cannot."""
    missing = sorted(needs - engine(name).capabilities)
    if missing:
        able = [each for each in get_args(EngineName) if needs <= engine(each).capabilities]
        raise EngineError(
            f"The engine {name!r} of this fleet cannot do {', '.join(missing)}. Engines that can: "
            f"{', '.join(able) or 'none does all of it'}."
        )


class _Hub(AsyncInferenceClient):
    """The hub's client with `post` in place of its transport."""

    def __init__(self, post: Callable[[str, Any], Any], **where: Any) -> None:
        super().__init__(**where)
        self._post = post

    async def _inner_post(self, request_parameters: Any, *, stream: bool = False) -> Any:
        return await self._post(request_parameters.url, request_parameters.json)


async def _read(reading: Any) -> Any:
    """Await a method of the hub: what it cannot read is a broken answer, not a bug."""
    try:
        return await reading
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        what = f"{type(error).__name__}: {error}"
        raise CallError("broken", f"the answer is unreadable ({what:.{_SHOWN}})") from error


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise CallError("broken", "the answer is not JSON") from None


def _refuse_status(refusal: _Refusal) -> NoReturn:
    status = refusal.status
    reason = f"HTTP {status}: {_complaint(refusal.body)}"
    if status in (401, 403):
        raise CallError("key", reason)
    if status == 408:
        raise CallError("timeout", reason)
    if status == 429:
        raise CallError("busy", reason, _retry_after(refusal.headers))
    if status == 424:  # TGI's word for a generation that failed on its side
        raise CallError("broken", reason)
    if 400 <= status < 500:
        raise CallError("caller", reason)
    raise CallError(
        "overloaded" if status == 503 else "unavailable", reason, _retry_after(refusal.headers)
    )


def _complaint(body: bytes) -> str:
    """Return what the server says of a refusal, from the forms in use, in one short line."""
    try:
        said = json.loads(body)
    except ValueError:
        said = body.decode(errors="replace")
    if isinstance(said, dict):
        said = said.get("error") or said.get("message") or said.get("detail")
    if isinstance(said, dict):
        said = said.get("message")
    if isinstance(said, list):  # one entry per wrong field; its input (a prompt) is not repeated
        fields = [each for each in said if isinstance(each, dict)]
        said = "; ".join(f"{each.get('loc')}: {each.get('msg')}" for each in fields)
    return " ".join(str(said or "(no words)").split())[:_SHOWN]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a server asks to be left alone, from either form of the header."""
    word = headers.get("Retry-After", "").strip()
    if not word:
        return None
    try:
        return max(0.0, float(word))
    except ValueError:
        pass  # Then it is the other form, a date.
    try:
        return max(0.0, email.utils.parsedate_to_datetime(word).timestamp() - time.time())
    except ValueError:
        return None  # Neither form: as good as no header, our own pauses count.
