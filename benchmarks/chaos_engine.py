"""A light engine for the chaos benchmark: OpenAI's chat over a real socket, no model behind it.

It takes vLLM's command line and its key, and answers each conversation with a text that is a
function of it alone, so that whoever asked can tell whether an answer is the right one.

    vllm serve some/model --served-model-name=chaos --host=127.0.0.1 --port=8000
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import os
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

SECONDS_A_CALL = 1.0


def answer_to(question: str) -> str:
    """Return what this engine says to a conversation that ends with `question`."""
    return f"Answer {hashlib.sha256(question.encode()).hexdigest()[:24]}"


def write_program(path: Path) -> None:
    """Make this module a program; vLLM's adapter wants it to be called `vllm`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    me = str(Path(__file__).resolve())
    path.write_text(
        f"#!{sys.executable}\nimport runpy\nrunpy.run_path({me!r}, run_name='__main__')\n"
    )
    path.chmod(0o755)


class Server:
    """Health, the list of models, and chat."""

    def __init__(self, model: str, key: str) -> None:
        self.model, self.authorization = model, f"Bearer {key}"

    async def health(self, _: web.Request) -> web.Response:
        """Say that all is well."""
        return web.Response()

    async def models(self, request: web.Request) -> web.Response:
        """List the one model."""
        self._check_key(request)
        return web.json_response({"object": "list", "data": [{"id": self.model}]})

    async def chat(self, request: web.Request) -> web.Response:
        """Answer after a moment."""
        self._check_key(request)
        asked: dict[str, Any] = await request.json()
        if asked["model"] != self.model:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        await asyncio.sleep(SECONDS_A_CALL)
        message = {"role": "assistant", "content": answer_to(asked["messages"][-1]["content"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
        return web.json_response(
            {
                "id": "chaos", "object": "chat.completion", "created": 0, "model": self.model,
                "choices": [choice], "usage": usage,
            }
        )  # fmt: skip

    def _check_key(self, request: web.Request) -> None:
        if not hmac.compare_digest(request.headers.get("Authorization", ""), self.authorization):
            raise web.HTTPUnauthorized


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    said, _ = parser.parse_known_args()
    server = Server(said.served_model_name, os.environ["VLLM_API_KEY"])
    app = web.Application()
    app.router.add_get("/health", server.health)
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    print("The engine starts.", flush=True)
    web.run_app(
        app, host=said.host, port=said.port, print=None, access_log=None, shutdown_timeout=0.5
    )


if __name__ == "__main__":
    main()
