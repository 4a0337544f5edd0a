#!/usr/bin/env python3
"""A program that behaves like `vllm serve` as far as an instance can tell, over a real socket.

Like vLLM it takes its key from VLLM_API_KEY and guards only /v1. Further words on its command line
(`--standin-...`) make it slow, silent, wrong, or crash.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

WORDS = "a kind word costs nothing and can change a day for the better".split()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--standin-start", type=float, default=0.0, help="seconds before it listens"
    )
    parser.add_argument("--standin-503", type=float, default=0.0, help="seconds of /health 503")
    parser.add_argument("--standin-model", help="the model that it serves, whatever it was told")
    parser.add_argument("--standin-no-chat", action="store_true", help="chat gives 404")
    parser.add_argument("--standin-exit", type=int, help="ends with this code at once")
    parser.add_argument(
        "--standin-child", help="a file for the pid of a child that it leaves behind"
    )
    known, others = parser.parse_known_args()
    print("settings:", vars(known), others, {"api_key": os.environ.get("VLLM_API_KEY")}, flush=True)
    return known


class Server:
    def __init__(self, said: argparse.Namespace) -> None:
        self.said = said
        self.model = said.standin_model or said.served_model_name
        self.healthy_from = time.monotonic() + said.standin_503
        self.silent = False
        self.seen: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.seen.append({"path": request.raw_path, **dict(request.headers)})
        if path == "/health":
            ok = time.monotonic() >= self.healthy_from and not self.silent
            return web.Response(status=200 if ok else 503)
        if path == "/silence":
            self.silent = True
            return web.Response()
        if path == "/crash":
            os._exit(9)
        if path == "/seen":
            return web.json_response(self.seen)
        if path.startswith("/v1") and not self.has_key(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        if path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": self.model}]})
        if path == "/v1/chat/completions" and not self.said.standin_no_chat:
            return await self.chat(request, await request.json())
        if path == "/v1/completions":
            return self.completion(await request.json())
        if path == "/v1/echo":
            return web.Response(body=await request.read(), headers={"X-Engine": "standin"})
        return web.json_response({"detail": "Not Found"}, status=404)

    def has_key(self, request: web.Request) -> bool:
        expected = f"Bearer {os.environ['VLLM_API_KEY']}"
        return hmac.compare_digest(request.headers.get("Authorization", ""), expected)

    def completion(self, asked: dict[str, Any]) -> web.Response:
        if asked["model"] != self.model:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        count = asked["max_tokens"]
        text = "".join(f" {WORDS[n % len(WORDS)]}" for n in range(count))
        choice = {"index": 0, "text": text, "finish_reason": "length"}
        usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": count + 3}
        return web.json_response({"model": self.model, "choices": [choice], "usage": usage})

    async def chat(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        """Write `max_tokens` words, one each `seconds` (of ours), all at once or streamed."""
        if asked["model"] != self.model:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        count, pause = asked["max_tokens"], asked.get("seconds", 0.0)
        words = [WORDS[n % len(WORDS)] for n in range(count)]
        usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": count + 3}
        if not asked.get("stream"):
            await asyncio.sleep(count * pause)
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            return web.json_response({"model": self.model, "choices": [choice], "usage": usage})
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for n, word in enumerate(words):
            await asyncio.sleep(pause)
            if asked.get("break_after") == n:
                os._exit(9)
            piece = {"choices": [{"index": 0, "delta": {"content": word}}]}
            await stream.write(f"data: {json.dumps(piece)}\n\n".encode())
        await stream.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode())
        await stream.write(b"data: [DONE]\n\n")
        return stream


def main() -> None:
    said = options()
    if said.standin_child:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        Path(said.standin_child).write_text(str(child.pid))
    if said.standin_exit is not None:
        sys.exit(said.standin_exit)
    time.sleep(said.standin_start)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", Server(said).answer)
    web.run_app(
        app, host=said.host, port=said.port, print=None, access_log=None, shutdown_timeout=0.1
    )


if __name__ == "__main__":
    main()
