"""Ready means that the expected model writes a token; a server that merely answers is not.

why_not = await not_ready(session, "http://127.0.0.1:8000", inner_key, spec)
"""

from __future__ import annotations

from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from infra.engines import ServeSpec, engine

_HEALTH = ClientTimeout(total=10)
_TRIAL = ClientTimeout(total=120)


async def is_healthy(session: ClientSession, url: str) -> bool:
    """Tell whether the server says so itself: GET /health gives 200."""
    try:
        async with session.get(f"{url}/health", timeout=_HEALTH) as answer:
            return answer.status == 200
    except (ClientError, TimeoutError, OSError):
        return False


async def not_ready(session: ClientSession, url: str, key: str, spec: ServeSpec) -> str | None:
    """Return why the server is not ready for work, None if it is.

    It is when /health gives 200, it lists the expected model, and a one-token completion of that
    model succeeds.
    """
    if not await is_healthy(session, url):
        return "GET /health does not give 200"
    adapter = engine(spec.engine)
    expected = adapter.model_name(spec)
    try:
        listed = adapter.listed(await _ask(session, "GET", url + adapter.listing, key))
        if expected not in listed:
            return f"it serves {', '.join(map(repr, sorted(listed)))}, not {expected!r}"
        route, body = adapter.trial(spec)
        answer = await _ask(session, "POST", url + route, key, body)
        if not adapter.completed(answer):
            return f"POST {route} gave no completion"
        if answer.get("model", expected) != expected:
            return f"{answer['model']!r} answered, not {expected!r}"
    except _RefusedError as refusal:
        return str(refusal)
    except (ClientError, TimeoutError, OSError) as error:
        return f"it does not answer ({type(error).__name__})"
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return f"its answer is not what {spec.engine} gives ({type(error).__name__}: {error})"
    return None


class _RefusedError(Exception):
    """An answer other than 200."""


async def _ask(session: ClientSession, method: str, url: str, key: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    async with session.request(method, url, json=body, headers=headers, timeout=_TRIAL) as answer:
        if answer.status != 200:
            said = " ".join((await answer.text(errors="replace")).split())
            raise _RefusedError(f"{method} {answer.url.path} gives {answer.status}: {said[:200]}")
        return await answer.json(content_type=None)
