"""The HTTP application: OpenAI's routes over one LocalEngine.

service = Service(config, ref, key="...")
uvicorn.run(service.app)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from jinja2 import TemplateError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from ccai_core import serve_replies as replies
from ccai_core.errors import EngineError
from ccai_core.local_engine import LocalEngine
from ccai_core.models import ModelRef
from ccai_core.scoring import TokenScores
from ccai_core.serve_config import ServeConfig
from ccai_core.serve_gate import Gate, Metrics
from ccai_core.serve_http import disconnected, fault, http_error, read_body, refusal
from ccai_core.serve_requests import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    check_scoring,
    parse,
)
from ccai_core.types import Completion

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_DEFAULT_CHAT_TOKENS = 1024
# What stands for no model: nothing, or what huggingface_hub sends where its caller named none.
_NO_MODEL = ("", "dummy")
_CLIENT_GONE = 499  # Nobody reads it; it is what the count of requests says.


class Service:
    """One model and the application that serves it; `failure` says why it could not be loaded.

    Args:
        config: settings of the server.
        ref: the resolved model.
        key: the API key; None lets everybody in.
        on_failure: called when the model cannot be loaded.
    """

    def __init__(
        self,
        config: ServeConfig,
        ref: ModelRef,
        key: str | None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._config, self._ref, self._on_failure = config, ref, on_failure
        self.name = config.served_name or ref.name
        self.engine = LocalEngine(
            ref,
            config.device,
            config.precision,
            config.batch_size,
            max_length=config.max_length,
            gather_seconds=config.gather_ms / 1000,
        )
        self.failure: Exception | None = None
        self._ready, self._inside, self._metrics = False, 0, Metrics()
        self.app = self._application(key)

    def _application(self, key: str | None) -> ASGIApp:
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._show_metrics),
            Route("/v1/models", self._when_ready(self._models)),
            Route("/v1/chat/completions", self._when_ready(self._chat), methods=["POST"]),
            Route("/v1/completions", self._when_ready(self._complete), methods=["POST"]),
        ]
        app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: http_error, 500: fault},
        )
        # A path with a slash too many is unknown, not somewhere else.
        app.router.redirect_slashes = False
        return Gate(app, key, self._metrics, [route.path for route in routes], {"/health"})

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            loading = asyncio.create_task(self._load(stack), name="load model")
            try:
                yield
            finally:
                self._ready = False
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)

    async def _load(self, stack: AsyncExitStack) -> None:
        try:
            await stack.enter_async_context(self.engine)
        except Exception as error:  # noqa: BLE001 - whoever runs the server raises it
            self.failure = error
            self._on_failure()
            return
        self._ready = True
        log.info("Ready: %s on %s in %s.", self.name, self.engine.endpoint, self.engine.dtype)

    # --- routes -----------------------------------------------------------------------------------

    async def _health(self, request: Request) -> Response:
        if self._ready:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "loading"}, 503, {"Retry-After": "1"})

    async def _show_metrics(self, request: Request) -> Response:
        running = self.engine.running
        waiting = max(0, self._inside - running)
        text = self._metrics.text(self.engine.batches, running, waiting)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _models(self, request: Request) -> Response:
        model = {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "ccai",
            "root": self._ref.name,
            "revision": self._ref.revision,
            "dtype": self.engine.dtype,
            "max_model_len": self.engine.context,
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def _chat(self, request: Request) -> Response:
        ask = parse(ChatRequest, await read_body(request))
        self._check_model(ask.model)
        try:
            tokens = self.engine.tokens.of_chat(ask.messages)
        except TemplateError as error:
            raise ApiError(
                400, f"The model's chat template takes no such messages: {error}.", param="messages"
            ) from None
        most = ask.most or max(1, min(_DEFAULT_CHAT_TOKENS, self.engine.context - len(tokens)))
        self._check_prompt(tokens, most, "messages")
        draw = self.engine.complete(tokens, ask.sampling(most), ask.stop)
        completion = await self._held(request, 1, draw)
        self._count([completion])
        kind = "chat.completion.chunk" if ask.stream else "chat.completion"
        choice = replies.chat_choice(completion, "delta" if ask.stream else "message")
        return self._reply(ask, ("chatcmpl", kind), [choice], replies.total_usage([completion]))

    async def _complete(self, request: Request) -> Response:
        ask = parse(CompletionRequest, await read_body(request))
        self._check_model(ask.model)
        scoring = check_scoring(ask)
        prompts = [self._encoded(prompt) for prompt in ask.prompts]
        if not prompts:
            raise ApiError(400, "prompt: there is none.", param="prompt")
        for tokens in prompts:
            self._check_prompt(tokens, ask.max_tokens, "prompt")
        if scoring:
            return await self._score(request, ask, prompts)
        draws = (self.engine.complete(p, ask.sampling(ask.max_tokens), ask.stop) for p in prompts)
        made: list[Completion] = await self._held(request, len(prompts), _all(draws))
        self._count(made)
        before = [self._spelled(prompt) if ask.echo else "" for prompt in ask.prompts]
        choices = [
            replies.text_choice(i, text, each)
            for i, (text, each) in enumerate(zip(before, made, strict=True))
        ]
        return self._reply(ask, ("cmpl", "text_completion"), choices, replies.total_usage(made))

    async def _score(
        self, request: Request, ask: CompletionRequest, prompts: Sequence[Sequence[int]]
    ) -> Response:
        reads = (self.engine.prompt_logprobs(tokens) for tokens in prompts)
        made: list[TokenScores] = await self._held(request, len(prompts), _all(reads))
        more, top = ask.max_tokens, ask.logprobs or 0
        choices = [
            replies.score_choice(i, ids, scores, self.engine.tokens, more, top)
            for i, (ids, scores) in enumerate(zip(prompts, made, strict=True))
        ]
        used = replies.usage(sum(map(len, prompts)), more * len(prompts))
        self._metrics.prompt_tokens += used["prompt_tokens"]
        self._metrics.completion_tokens += used["completion_tokens"]
        return self._reply(ask, ("cmpl", "text_completion"), choices, used)

    # --- what routes share ------------------------------------------------------------------------

    def _when_ready(self, handle: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            try:
                if not self._ready:
                    raise ApiError(503, "The model is loading.", headers={"Retry-After": "1"})
                return await handle(request)
            except ApiError as error:
                return refusal(error)
            except EngineError as error:
                return refusal(ApiError(500, str(error)))

        return answer

    def _check_model(self, name: str) -> None:
        if name not in (*_NO_MODEL, self.name):
            raise ApiError(
                404,
                f"The model {name!r:.200} is not here; this server has {self.name!r}.",
                param="model",
                code="model_not_found",
            )

    def _check_prompt(self, tokens: Sequence[int], most: int, param: str) -> None:
        if not tokens:
            raise ApiError(400, f"{param}: there is no token in it.", param=param)
        if len(tokens) + most > self.engine.context:
            raise ApiError(
                400,
                f"{len(tokens)} tokens of prompt and {most} new ones exceed the context window of "
                f"{self.engine.context} tokens.",
                param=param,
                code="context_length_exceeded",
            )
        if min(tokens) < 0 or max(tokens) >= self.engine.vocabulary:
            raise ApiError(
                400, f"{param}: tokens are 0 to {self.engine.vocabulary - 1}.", param=param
            )

    def _encoded(self, prompt: str | list[int]) -> list[int]:
        return self.engine.tokens.of_inert_text(prompt) if isinstance(prompt, str) else prompt

    def _spelled(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self.engine.tokens.text_of(prompt)

    def _count(self, made: Sequence[Completion]) -> None:
        self._metrics.prompt_tokens += sum(each.prompt_tokens for each in made)
        self._metrics.completion_tokens += sum(each.completion_tokens for each in made)

    async def _held(self, request: Request, sequences: int, work: Coroutine[Any, Any, T]) -> T:
        """Do the work while there is room for it and the client is there."""
        with self._room(sequences, work):
            doing = asyncio.ensure_future(work)
            leaving = asyncio.ensure_future(disconnected(request))
            try:
                await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not doing.done():
                    raise ApiError(_CLIENT_GONE, "The client has gone.")
                return doing.result()
            finally:
                doing.cancel()
                leaving.cancel()

    @contextmanager
    def _room(self, sequences: int, work: Coroutine[Any, Any, Any]) -> Iterator[None]:
        most = self._config.batch_size + self._config.max_waiting
        if self._inside + sequences > most:
            work.close()
            if sequences > most:
                raise ApiError(400, f"prompt: at most {most} in one request.", param="prompt")
            raise ApiError(
                429, f"{self._inside} calls are waiting already.", headers={"Retry-After": "1"}
            )
        self._inside += sequences
        self._metrics.sequences += sequences
        try:
            yield
        finally:
            self._inside -= sequences

    def _reply(
        self,
        ask: ChatRequest | CompletionRequest,
        kind: tuple[str, str],
        choices: list[replies.Reply],
        used: replies.Reply,
    ) -> Response:
        reply = replies.head(*kind, self.name, self.engine.model)
        reply |= {"choices": choices, "usage": used}
        if not ask.stream:
            return JSONResponse(reply)
        events = replies.stream(reply, ask.stream_options.include_usage)
        return StreamingResponse(events, media_type="text/event-stream")


async def _all(each: Iterator[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*each))
