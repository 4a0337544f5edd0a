#!/usr/bin/env python3
"""A program that speaks TGI's HTTP API over a real socket, started like text-generation-launcher.

It writes words from a list instead of a model's. Everything round that is TGI's: routes, bodies,
server-sent events, what it refuses and how (422, 429), and its weaknesses: the key guards only
generation and /tokenize, and its case does not matter. `test_tgi_standin.py` checks it against
TGI's own OpenAPI document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

WORDS = "kindness is a habit that grows when it is used and fades when it is not".split()
NATURAL_END = 40
GUARDED = frozenset(
    ["/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions", "/tokenize",
     "/invocations"]
)  # fmt: skip
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RefusedError(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Written:
    tokens: list[dict[str, Any]]
    text: str
    reason: str
    prompt_tokens: int
    seed: int | None


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-id", required=True)
    parser.add_argument("--hostname", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-concurrent-requests", type=int, default=128)
    parser.add_argument("--max-total-tokens", type=int, default=2048)
    parser.add_argument("--max-input-tokens", type=int, default=2047)
    for name in ("--num-shard", "--shard-uds-path", "--revision", "--dtype"):
        parser.add_argument(name)
    return parser.parse_args()


class TGI:
    def __init__(self, said: argparse.Namespace) -> None:
        self.said = said
        self.key = os.environ.get("API_KEY")
        self.busy = 0
        self.requests = 0

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        guarded = self.key is not None and request.path in GUARDED
        if guarded and given.lower() != f"Bearer {self.key}".lower():
            return web.Response(status=401)
        try:
            return await handler(request)
        except RefusedError as refusal:
            body = {"error": str(refusal), "error_type": refusal.kind}
            return web.json_response(body, status=refusal.status)

    # --- open routes ------------------------------------------------------------------------------

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def info(self, request: web.Request) -> web.Response:
        said = self.said
        return web.json_response({
            "model_id": said.model_id, "model_sha": said.revision, "model_pipeline_tag": None,
            "max_concurrent_requests": said.max_concurrent_requests, "max_best_of": 2,
            "max_stop_sequences": 4, "max_input_tokens": said.max_input_tokens,
            "max_total_tokens": said.max_total_tokens, "validation_workers": 2,
            "max_client_batch_size": 4, "router": "text-generation-router", "version": "3.3.6",
            "sha": None, "docker_label": None,
        })  # fmt: skip

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            text=f"# TYPE tgi_request_count counter\ntgi_request_count {self.requests}\n"
        )

    async def models(self, request: web.Request) -> web.Response:
        model = {"id": self.said.model_id, "object": "model", "created": 0, "owned_by": "owner"}
        return web.json_response({"object": "list", "data": [model]})

    async def chat_tokenize(self, request: web.Request) -> web.Response:
        text = templated((await read(request))["messages"])
        return web.json_response({"tokenize_response": tokenized(text), "templated_text": text})

    # --- guarded routes ---------------------------------------------------------------------------

    async def tokenize(self, request: web.Request) -> web.Response:
        return web.json_response(tokenized((await read(request))["inputs"]))

    async def compat(self, request: web.Request) -> web.StreamResponse:
        body = await read(request)
        if body.get("stream"):
            return await self.stream(request, body)
        return web.json_response([await self.generated(body)])

    async def invocations(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self.generated(await read(request)))

    async def generate(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self.generated(await read(request)))

    async def generate_stream(self, request: web.Request) -> web.StreamResponse:
        return await self.stream(request, await read(request))

    async def generated(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = parameters(body)
        written = await self.write(body["inputs"], asked)
        answer: dict[str, Any] = {"generated_text": written.text}
        if asked.get("return_full_text"):
            answer["generated_text"] = body["inputs"] + written.text
        if asked.get("details") or asked.get("decoder_input_details"):
            answer["details"] = {
                "finish_reason": written.reason, "generated_tokens": len(written.tokens),
                "seed": written.seed, "prefill": [], "tokens": written.tokens,
            }  # fmt: skip
        return answer

    async def stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        written = await self.write(body["inputs"], parameters(body))
        answer = await events(request)
        last = len(written.tokens) - 1
        for index, token in enumerate(written.tokens):
            event: dict[str, Any] = {
                "index": index + 1, "token": token, "generated_text": None, "details": None,
            }  # fmt: skip
            if index == last:
                event["generated_text"] = written.text
                event["details"] = {
                    "finish_reason": written.reason, "generated_tokens": len(written.tokens),
                    "seed": written.seed, "input_length": written.prompt_tokens,
                }  # fmt: skip
            await answer.write(f"data:{json.dumps(event)}\n\n".encode())
        return answer

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await read(request)
        if not isinstance(body.get("messages"), list):
            raise RefusedError(422, "validation", "messages is missing")
        # Chat knows temperature 0 (greedy), and does not know repetition_penalty: no error.
        asked = {
            "max_new_tokens": body.get("max_tokens"), "seed": body.get("seed"),
            "temperature": body.get("temperature") or None, "stop": body.get("stop") or [],
        }  # fmt: skip
        written = await self.write(templated(body["messages"]), asked)
        head = {"id": "", "created": int(time.time()), "model": self.said.model_id,
                "system_fingerprint": "3.3.6-native"}  # fmt: skip
        usage = usage_of(written)
        reason = "length" if written.reason == "length" else "stop"
        if body.get("stream"):
            return await self.chat_stream(request, head, written, reason)
        choice: dict[str, Any] = {
            "index": 0, "message": {"role": "assistant", "content": written.text},
            "logprobs": logprobs(written) if body.get("logprobs") else None,
            "finish_reason": reason,
        }  # fmt: skip
        whole = {"object": "chat.completion", **head, "choices": [choice], "usage": usage}
        return web.json_response(whole)

    async def chat_stream(
        self, request: web.Request, head: dict[str, Any], written: Written, reason: str
    ) -> web.StreamResponse:
        answer = await events(request)
        last = len(written.tokens) - 1
        for index, token in enumerate(written.tokens):
            choice = {
                "index": 0, "delta": {"role": "assistant", "content": token["text"]},
                "logprobs": None, "finish_reason": reason if index == last else None,
            }  # fmt: skip
            event = {"object": "chat.completion.chunk", **head, "choices": [choice], "usage": None}
            await answer.write(f"data: {json.dumps(event)}\n\n".encode())
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await read(request)
        asked = {"max_new_tokens": body.get("max_tokens"), "seed": body.get("seed"),
                 "stop": body.get("stop") or []}  # fmt: skip
        written = await self.write(body["prompt"], asked)
        choice = {"index": 0, "text": written.text, "logprobs": None,
                  "finish_reason": written.reason}  # fmt: skip
        return web.json_response({
            "id": "", "object": "text_completion", "created": int(time.time()),
            "model": self.said.model_id, "system_fingerprint": "3.3.6-native",
            "choices": [choice], "usage": usage_of(written),
        })  # fmt: skip

    # --- words ------------------------------------------------------------------------------------

    async def write(self, prompt: str, asked: dict[str, Any]) -> Written:
        self.requests += 1
        if self.busy >= self.said.max_concurrent_requests:
            raise RefusedError(429, "overloaded", "Model is overloaded")
        prompt_tokens = len(prompt.split())
        most = asked.get("max_new_tokens") or 100
        self.validate(prompt_tokens, most, asked)
        self.busy += 1
        try:
            await asyncio.sleep(0.002 * most)
        finally:
            self.busy -= 1
        sampled = asked.get("do_sample") or asked.get("temperature") or asked.get("seed")
        seed = asked.get("seed") or (random.getrandbits(32) if sampled else None)
        return compose(prompt, prompt_tokens, most, asked.get("stop") or [], seed)

    def validate(self, prompt_tokens: int, most: int, asked: dict[str, Any]) -> None:
        if prompt_tokens == 0:
            raise RefusedError(
                422, "validation", "Input validation error: `inputs` cannot be empty"
            )
        if prompt_tokens > self.said.max_input_tokens:
            raise RefusedError(422, "validation", "Input validation error: `inputs` is too long")
        if prompt_tokens + most > self.said.max_total_tokens:
            raise RefusedError(422, "validation", "Input validation error: too many new tokens")
        if len(asked.get("stop") or []) > 4:
            raise RefusedError(
                422, "validation", "Input validation error: at most 4 `stop` sequences"
            )


def compose(
    prompt: str, prompt_tokens: int, most: int, stop: list[str], seed: int | None
) -> Written:
    draw = random.Random(f"{prompt}|{seed}")
    tokens: list[dict[str, Any]] = []
    text, reason = "", "length"
    for n in range(min(most, NATURAL_END)):
        word = ("" if n == 0 else " ") + (
            WORDS[n % len(WORDS)] if seed is None else draw.choice(WORDS)
        )
        text += word
        tokens.append({"id": len(word), "text": word, "logprob": -0.5, "special": False})
        if any(each in text for each in stop):
            reason = "stop_sequence"
            break
    else:
        reason = "length" if most <= NATURAL_END else "eos_token"
    return Written(tokens, text, reason, prompt_tokens, seed)


def parameters(body: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of TGI's own API, which refuses values that OpenAI's takes."""
    if not isinstance(body.get("inputs"), str):
        raise RefusedError(422, "validation", "inputs is missing")
    asked: dict[str, Any] = body.get("parameters") or {}
    if asked.get("temperature") is not None and asked["temperature"] <= 0:
        raise RefusedError(422, "validation", "`temperature` must be strictly positive")
    if asked.get("top_p") is not None and not 0 < asked["top_p"] < 1:
        raise RefusedError(422, "validation", "`top_p` must be > 0.0 and < 1.0")
    if asked.get("repetition_penalty") is not None and asked["repetition_penalty"] <= 0:
        raise RefusedError(422, "validation", "`repetition_penalty` must be strictly positive")
    return asked


def logprobs(written: Written) -> dict[str, Any]:
    return {"content": [
        {"token": each["text"], "logprob": each["logprob"], "top_logprobs": []}
        for each in written.tokens
    ]}  # fmt: skip


def usage_of(written: Written) -> dict[str, int]:
    new, old = len(written.tokens), written.prompt_tokens
    return {"prompt_tokens": old, "completion_tokens": new, "total_tokens": new + old}


def templated(messages: list[dict[str, Any]]) -> str:
    return "".join(f"<{each['role']}> {each['content']}\n" for each in messages)


def tokenized(text: str) -> list[dict[str, Any]]:
    found, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        found.append({"id": len(word), "text": word, "start": start, "stop": start + len(word)})
        start += len(word)
    return found


async def read(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise RefusedError(422, "validation", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise RefusedError(422, "validation", "the body is not an object")
    return body


async def events(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    return answer


def main() -> None:
    said = options()
    tgi = TGI(said)
    app = web.Application(middlewares=[tgi.guard], client_max_size=2_000_000)
    app.add_routes([
        web.get("/health", tgi.health), web.get("/info", tgi.info), web.get("/", tgi.health),
        web.get("/metrics", tgi.metrics), web.get("/v1/models", tgi.models),
        web.post("/chat_tokenize", tgi.chat_tokenize), web.post("/tokenize", tgi.tokenize),
        web.post("/", tgi.compat), web.post("/generate", tgi.generate),
        web.post("/generate_stream", tgi.generate_stream),
        web.post("/invocations", tgi.invocations),
        web.post("/v1/chat/completions", tgi.chat), web.post("/v1/completions", tgi.completions),
    ])  # fmt: skip
    web.run_app(
        app, host=said.hostname, port=said.port, print=None, access_log=None, shutdown_timeout=0.1
    )


if __name__ == "__main__":
    main()
