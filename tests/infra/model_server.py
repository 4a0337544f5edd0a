"""A stand-in inference server over a real socket: OpenAI's and TGI's routes, and every fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from infra.cluster import EngineName
from infra.endpoint import Endpoint, key_id

KEY = "the-fleets-key"

Fault = Callable[["ModelServer", web.Request], Awaitable[web.StreamResponse | None]]


class ModelServer:
    """Answers at once, or when `gate` opens; `fault` may answer in its place."""

    def __init__(
        self,
        name: str = "a",
        engine: EngineName = "vllm",
        *,
        max_parallel: int = 64,
        version: str = "3.3.6-dev0",
        fault: Fault | None = None,
    ) -> None:
        self.name, self.engine, self.max_parallel, self.version = (
            name,
            engine,
            max_parallel,
            version,
        )
        self.fault = fault
        self.gate = asyncio.Event()
        self.gate.set()
        self.finish = "stop"
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.done: list[str] = []
        self.running: list[web.Request] = []
        self.most_running = 0
        self.arrived = asyncio.Condition()

    async def __aenter__(self) -> ModelServer:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._serve(self._chat))
        app.router.add_post("/v1/completions", self._serve(self._completion))
        app.router.add_post("/generate", self._serve(self._generate))
        app.router.add_get("/info", self._info)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self._runner.cleanup()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(
            instance=self.name, url=f"http://127.0.0.1:{self.port}", model="the/model",
            engine=self.engine, max_parallel=self.max_parallel, host="h", pid=self.port,
            job_id="1", started="2026-01-01T00:00:00Z", key_id=key_id(KEY),
        )  # fmt: skip

    async def die(self) -> None:
        """As a killed process: connections are reset, and none is taken any more."""
        for request in self.running:
            if request.transport is not None:
                request.transport.abort()
        await self._runner.cleanup()

    async def has_running(self, count: int) -> None:
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.running) >= count)

    def _serve(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") != f"Bearer {KEY}":
                return web.json_response({"error": "unauthorized"}, status=401)
            body = await request.json()
            self.bodies.append((request.path, body))
            self.running.append(request)
            self.most_running = max(self.most_running, len(self.running))
            async with self.arrived:
                self.arrived.notify_all()
            try:
                if self.fault is not None and (made := await self.fault(self, request)) is not None:
                    return made
                await self.gate.wait()
                self.done.append(_said(body))
                return web.json_response(answer(body))
            finally:
                self.running.remove(request)

        return handle

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": f"echo {_said(body)}"},
            "finish_reason": self.finish,
        }
        if body.get("logprobs"):
            top = {"token": "echo", "logprob": -0.5, "top_logprobs": []}
            choice["logprobs"] = {"content": [top, {**top, "token": "x", "logprob": -1}]}
        return {
            "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
            "system_fingerprint": "", "choices": [choice],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }  # fmt: skip

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish, "logprobs": None}
        if isinstance(prompt, list):
            choice |= {"text": "", "finish_reason": "length"}
            values = [None, *(-float(each) for each in prompt[1:])]
            choice["logprobs"] = {"token_logprobs": values, "tokens": [str(i) for i in prompt]}
        else:
            choice["text"] = f"echo {prompt}"
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 2, "total_tokens": 5}
        return {"id": "1", "choices": [choice], "usage": usage}

    def _generate(self, body: dict[str, Any]) -> dict[str, Any]:
        token = {"id": 5, "text": "echo", "logprob": -0.5, "special": False}
        details = {
            "finish_reason": self.finish, "generated_tokens": 2, "prefill": [],
            "tokens": [token, token], "seed": 1,
        }  # fmt: skip
        stop = (body["parameters"].get("stop") or [""])[0]
        return {"generated_text": f"echo {body['inputs']}{stop}", "details": details}

    async def _info(self, _: web.Request) -> web.Response:
        return web.json_response({"model_id": "the/model", "version": self.version})


def _said(body: dict[str, Any]) -> str:
    if "messages" in body:
        return str(body["messages"][-1]["content"])
    return str(body.get("inputs") or body.get("prompt"))
