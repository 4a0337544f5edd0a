"""The proxy: who gets through, what goes through, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from infra.ports import free_port, listen, url_of
from infra.proxy import COUNTS, Proxy

KEY = "Fleet-Key-aBcD"
INNER = "inner-key"

# What the servers offer; the proxy knows none of it.
ROUTES = {
    "tgi": "/ /info /metrics /generate /generate_stream /tokenize /chat_tokenize /invocations "
    "/v1/models /v1/chat/completions /v1/completions /docs /api-doc/openapi.json /ping",
    "vllm": "/v1/models /v1/chat/completions /v1/completions /v1/embeddings /tokenize /detokenize "
    "/pooling /score /rerank /classify /invocations /version /metrics /ping /load /pause /resume "
    "/docs /openapi.json /inference/v1/generate /server_info",
    "sglang": "/v1/models /v1/chat/completions /generate /get_model_info /get_server_info "
    "/flush_cache /update_weights_from_disk /abort_request /health_generate /metrics",
    "transformers": "/v1/models /v1/chat/completions /v1/completions /metrics",
    "llamacpp": "/v1/models /v1/chat/completions /completion /props /slots /slots/0 /metrics "
    "/tokenize /apply-template /lora-adapters /index.html / /infill /embedding",
}
NO_KEYS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "wrong": [("Authorization", "Bearer wrong")],
    "other case": [("Authorization", f"Bearer {KEY.lower()}")],
    "upper case": [("Authorization", f"Bearer {KEY.upper()}")],
    "the engine's": [("Authorization", f"Bearer {INNER}")],
    "other scheme": [("Authorization", f"Basic {KEY}")],
    "scheme in lower case": [("Authorization", f"bearer {KEY}")],
    "bare": [("Authorization", KEY)],
    "prefix": [("Authorization", f"Bearer {KEY[:-1]}")],
    "with more": [("Authorization", f"Bearer {KEY}x")],
    "twice": [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer wrong")],
    "other header": [
        ("X-Api-Key", KEY),
        ("Api-Key", KEY),
        ("Proxy-Authorization", f"Bearer {KEY}"),
    ],
    "not ascii": [("Authorization", "Bearer ü")],
}
GOOD = {"Authorization": f"Bearer {KEY}"}


@asynccontextmanager
async def upstream(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    server_side = web.Server(handler, handler_cancellation=True)
    runner = web.ServerRunner(server_side, shutdown_timeout=0.1)
    await runner.setup()
    server = listen("loopback")
    await web.SockSite(runner, server).start()
    try:
        yield url_of(server)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def proxied(url: str | None, max_body: int = 1 << 20) -> AsyncIterator[tuple[Proxy, str]]:
    proxy, server = Proxy(KEY, max_body), listen("loopback")
    await proxy.start(server)
    proxy.forward_to(url, INNER)
    try:
        yield proxy, url_of(server)
    finally:
        await proxy.stop()


async def welcome(request: web.BaseRequest) -> web.StreamResponse:
    """Answer anything to anybody, as a server that guards nothing would, and say what came."""
    body = await request.read()
    headers = [[k.lower(), v] for k, v in request.headers.items()]
    return web.json_response({
        "method": request.method, "path": request.raw_path, "headers": headers, "length": len(body),
    })  # fmt: skip


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 30)

    asyncio.run(limited())


# --- who gets through -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ROUTES)
def test_without_exactly_the_key_every_route_of_an_engine_gives_401(engine: str) -> None:
    async def test() -> None:
        async with (
            upstream(welcome) as url,
            proxied(url) as (proxy, at),
            aiohttp.ClientSession(at) as session,
        ):
            paths = [*ROUTES[engine].split(), COUNTS]
            for path in paths:
                methods = ["GET", "POST"] if path != "/" else ["GET", "POST", "OPTIONS", "HEAD"]
                for method in methods:
                    for how, headers in NO_KEYS.items():
                        async with session.request(method, path, headers=headers) as answer:
                            assert answer.status == 401, (engine, method, path, how)
                async with session.post(path, headers=GOOD, json={}) as answer:
                    assert answer.status == 200, (engine, path)
            assert proxy.counts.requests == len(paths)

    run(test)


def test_only_get_of_exactly_health_is_everybodys() -> None:
    async def test() -> None:
        async with (
            upstream(welcome) as url,
            proxied(url) as (proxy, at),
            aiohttp.ClientSession(at) as session,
        ):
            async with session.get("/health") as answer:
                assert (answer.status, await answer.json()) == (200, {"status": "ok"})
            paths = "/health/ //health /Health /health/x /health;x /healthz /x/../info /.".split()
            asked = [("GET", path) for path in paths]
            asked += [
                (method, "/health") for method in "POST PUT HEAD OPTIONS DELETE TRACE".split()
            ]
            for method, path in asked:
                reply = await raw(at, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")
                assert reply.startswith("HTTP/1.1 401 "), (method, path)
            assert proxy.counts.requests == 0, "something got through"

    run(test)


@pytest.mark.parametrize(
    "start",
    ["GET http://other/v1/models HTTP/1.1", "CONNECT other:80 HTTP/1.1", "OPTIONS * HTTP/1.1",
     "GET /v1/models HTTP/1.0", "PROPFIND /info HTTP/1.1"],
)  # fmt: skip
def test_odd_requests_without_key_give_401_too(start: str) -> None:
    async def test() -> None:
        async with upstream(welcome) as url, proxied(url) as (proxy, at):
            reply = await raw(at, f"{start}\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert reply.split()[1] == "401"
            upgrade = (
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            )
            assert (await raw(at, upgrade)).split()[1] == "401"
            assert proxy.counts.requests == 0

    run(test)


async def raw(at: str, text: str) -> str:
    """Send bytes as they are; return what comes until half a second of silence or the end."""
    host, port = at.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text.encode())
    got = b""
    try:
        while piece := await asyncio.wait_for(reader.read(65536), 0.2):
            got += piece
    except TimeoutError:
        pass
    writer.close()
    return got.decode()


# --- what goes through ----------------------------------------------------------------------------


def test_a_request_arrives_whole_with_the_engines_own_key() -> None:
    async def test() -> None:
        async with (
            upstream(welcome) as url,
            proxied(url) as (_, at),
            aiohttp.ClientSession(at) as session,
        ):
            path = "/v1/a%2Fb//c?x=%20y&x=z"
            sent = {
                **GOOD, "Content-Type": "application/json", "X-Request-Id": "7",
                "X-Forwarded-For": "1.2.3.4", "X-data-parallel-rank": "3", "Cookie": "a=b",
                "Connection": "x-secret", "X-Secret": "1", "Host": "elsewhere",
            }  # fmt: skip
            async with session.post(
                aiohttp.client.URL(at + path, encoded=True), data=b"x" * 5000, headers=sent
            ) as answer:
                got = await answer.json()
        headers = dict(got["headers"])
        assert (got["method"], got["path"], got["length"]) == ("POST", path, 5000)
        assert headers["authorization"] == f"Bearer {INNER}"
        assert (headers["content-type"], headers["x-request-id"]) == ("application/json", "7")
        assert headers["host"] == url.removeprefix("http://")
        assert not headers.keys() & {
            "x-forwarded-for",
            "x-data-parallel-rank",
            "cookie",
            "x-secret",
        }

    run(test)


def test_a_target_that_names_another_host_stays_here() -> None:
    async def test() -> None:
        async with upstream(welcome) as url, proxied(url) as (_, at):
            for target in ("http://127.0.0.1:9/x", "//127.0.0.1:9/x", "/@127.0.0.1:9/x"):
                head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
                reply = await raw(at, head)
                assert reply.startswith("HTTP/1.1 200 "), (target, reply)
                assert '"path": "/' in reply

    run(test)


def test_answers_are_streamed_as_they_come_and_tokens_are_counted() -> None:
    go_on = asyncio.Event()

    async def stream(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse(
            status=201, headers={"X-Engine": "yes", "Connection": "X-Hop", "X-Hop": "1"}
        )
        await answer.prepare(request)
        await answer.write(b"data: one\n\n")
        await go_on.wait()
        await answer.write(b'data: {"usage": {"completion_tokens": 12}}\n\n')
        return answer

    async def test() -> None:
        async with (
            upstream(stream) as url,
            proxied(url) as (proxy, at),
            aiohttp.ClientSession(at) as session,
            session.post("/v1/chat/completions", headers=GOOD) as answer,
        ):
            assert (answer.status, answer.headers["X-Engine"]) == (201, "yes")
            assert "X-Hop" not in answer.headers
            assert await answer.content.readany() == b"data: one\n\n"
            assert proxy.counts.in_flight == 1
            go_on.set()
            assert b"completion_tokens" in await answer.read()
            await asyncio.sleep(0.05)
            assert (proxy.counts.in_flight, proxy.counts.completion_tokens) == (0, 12)

    run(test)


def test_a_text_cannot_pose_as_a_count() -> None:
    async def lie(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"text": 'Sure: "completion_tokens": 999999', "n": 1})

    async def test() -> None:
        async with (
            upstream(lie) as url,
            proxied(url) as (proxy, at),
            aiohttp.ClientSession(at) as session,
        ):
            await (await session.get("/x", headers=GOOD)).read()
            assert (proxy.counts.requests, proxy.counts.completion_tokens) == (1, 0)

    run(test)


def test_bodies_are_bounded_whether_announced_or_not() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65536

    async def test() -> None:
        async with (
            upstream(welcome) as url,
            proxied(url, max_body=1 << 20) as (_, at),
            aiohttp.ClientSession(at) as session,
        ):
            async with session.post("/x", headers=GOOD, data=b"x" * (1 << 20)) as answer:
                assert (await answer.json())["length"] == 1 << 20
            async with session.post("/x", headers=GOOD, data=endless()) as answer:
                assert answer.status == 413
        head = f"POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        async with upstream(welcome) as url, proxied(url, 1000) as (_, at):
            assert "413" in await raw(at, head + "Content-Length: 1001\r\n\r\n")
            expecting = head + "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
            assert (await raw(at, expecting)).startswith("HTTP/1.1 100 Continue\r\n")

    run(test)


# --- when something breaks ------------------------------------------------------------------------


def test_no_engine_and_a_dead_engine_give_503_and_a_mute_one_502() -> None:
    async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def test() -> None:
        async with proxied(None) as (proxy, at), aiohttp.ClientSession(at) as session:
            async with session.get("/health") as answer:
                assert answer.status == 503
            async with session.get("/x", headers=GOOD) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            proxy.forward_to(f"http://127.0.0.1:{free_port()}", INNER)
            async with session.get("/x", headers=GOOD) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            async with upstream(hang_up) as url:
                proxy.forward_to(url, INNER)
                async with session.post("/x", headers=GOOD, json={}) as answer:
                    assert answer.status == 502
            assert (proxy.counts.errors, proxy.counts.in_flight) == (2, 0)

    run(test)


@pytest.mark.parametrize("length", [None, "100"])
def test_an_answer_that_breaks_off_does_not_look_whole(length: str | None) -> None:
    async def break_off(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": length} if length else {})
        await answer.prepare(request)
        await answer.write(b"half of ")
        assert request.transport is not None
        await asyncio.sleep(0.05)
        request.transport.abort()
        return answer

    async def test() -> None:
        async with (
            upstream(break_off) as url,
            proxied(url) as (proxy, at),
            aiohttp.ClientSession(at) as session,
        ):
            with pytest.raises(aiohttp.ClientError):
                async with session.get("/x", headers=GOOD) as answer:
                    await answer.read()
            assert (proxy.counts.errors, proxy.counts.in_flight) == (1, 0)

    run(test)


@pytest.mark.parametrize("streams", [True, False])
def test_when_the_client_leaves_the_engine_stops(streams: bool) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def long(request: web.BaseRequest) -> web.StreamResponse:
        entered.set()
        try:
            if not streams:
                await asyncio.sleep(20)
            answer = web.StreamResponse()
            await answer.prepare(request)
            while True:
                await answer.write(b"word ")
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.CancelledError):
            left.set()
            raise

    async def test() -> None:
        async with (
            upstream(long) as url,
            proxied(url) as (proxy, at),
            aiohttp.ClientSession(at) as session,
        ):
            asking = asyncio.create_task(session.get("/x", headers=GOOD))
            await entered.wait()
            if streams:
                (await asking).close()
            asking.cancel()
            await asyncio.wait_for(left.wait(), 5)
            while proxy.counts.in_flight:
                await asyncio.sleep(0.02)

    run(test)


def test_draining_refuses_new_calls_and_waits_for_those_in_flight() -> None:
    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.4)
        return web.json_response({"done": True})

    async def test() -> None:
        async with (
            upstream(slow) as url,
            proxied(url) as (proxy, at),
            aiohttp.ClientSession(at) as session,
        ):
            inside = asyncio.create_task(session.get("/x", headers=GOOD))
            await asyncio.sleep(0.1)
            draining = asyncio.create_task(proxy.drain(5))
            await asyncio.sleep(0)
            for path, status in (("/x", 503), ("/health", 503), (COUNTS, 200)):
                async with session.get(path, headers=GOOD) as answer:
                    assert answer.status == status
            assert not draining.done()
            assert await (await inside).json() == {"done": True}
            assert await draining is True

    run(test)


def test_the_answers_of_strangers_say_nothing_of_us() -> None:
    async def test() -> None:
        async with upstream(welcome) as url, proxied(url) as (_, at):
            reply = await raw(at, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            assert KEY not in reply
            assert INNER not in reply
            assert re.search(r"\r\nWWW-Authenticate: Bearer\r\n", reply)
            assert json.loads(reply.split("\r\n\r\n", 1)[1])["error"]["code"] == 401

    run(test)


def test_a_port_is_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))
