"""The door of the server: who may come in, and how many did.

app = Gate(app, key="...", metrics=Metrics(), open_paths={"/health"})
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ccai_core.serve_http import refusal
from ccai_core.serve_requests import ApiError


class Metrics:
    """Counts, in Prometheus' text format."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.prompt_tokens = self.completion_tokens = self.sequences = 0

    def text(self, batches: int, running: int, waiting: int) -> str:
        """Return all counts; those of the engine, of sequences running and waiting, are given."""
        lines = [
            "# HELP ccai_requests_total Requests answered, by route and HTTP status.",
            "# TYPE ccai_requests_total counter",
        ]
        lines += [
            f'ccai_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self.requests.items())
        ]
        for name, kind, about, value in (
            ("prompt_tokens_total", "counter", "Tokens read.", self.prompt_tokens),
            ("completion_tokens_total", "counter", "Tokens written.", self.completion_tokens),
            ("sequences_total", "counter", "Prompts continued or scored.", self.sequences),
            ("batches_total", "counter", "Batches computed.", batches),
            ("sequences_running", "gauge", "Sequences being computed.", running),
            ("sequences_waiting", "gauge", "Sequences waiting for a batch.", waiting),
        ):
            lines += [f"# HELP ccai_{name} {about}", f"# TYPE ccai_{name} {kind}"]
            lines.append(f"ccai_{name} {value}")
        return "\n".join(lines) + "\n"


class Gate:
    """ASGI middleware: every path that is not open wants the key; every answer is counted.

    Args:
        app: what is behind the gate.
        key: the API key; None lets everybody in.
        metrics: where answers are counted.
        routes: paths that are counted by name; the names of others come from clients.
        open_paths: paths that want no key.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str | None,
        metrics: Metrics,
        routes: Collection[str],
        open_paths: Collection[str],
    ) -> None:
        self._app, self._metrics = app, metrics
        self._key = None if key is None else key.encode("ascii")
        self._routes, self._open = frozenset(routes), frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection's event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._routes else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests[route, message["status"]] += 1
            await send(message)

        allowed = scope["path"] in self._open or self._knows_key(scope)
        app = self._app if allowed else _no_key()
        await app(scope, receive, counted)

    def _knows_key(self, scope: Scope) -> bool:
        if self._key is None:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = (given[0] if len(given) == 1 else b"").partition(b" ")
        return hmac.compare_digest(key.strip(), self._key) and scheme.lower() == b"bearer"


def _no_key() -> ASGIApp:
    error = ApiError(
        401,
        "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'.",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
    return refusal(error)
