"""The router, over real sockets: whom it asks, what it passes on, and who is let in."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from ccai_core.errors import FleetError
from infra.endpoint import Endpoint
from infra.fleet_health import Health
from infra.fleet_metrics import Load, measure, metric_sums
from infra.ports import free_port
from infra.proxy import COUNTS
from infra.router import Router

KEY = "the-key-of-this-fleet"
WITH_KEY = {"Authorization": f"Bearer {KEY}"}


class Upstream:
    """An instance as a router sees one: it says what it got, and can be made to misbehave."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name, self.port = name, port or free_port()
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.at_work, self.most_at_work = 0, 0
        self.status, self.breaks, self.healthy = 200, False, True
        self.hold = threading.Event()
        self.hold.set()
        self.left = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()
        self._thread.start()
        self._started.wait()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(
            instance=self.name, url=f"http://127.0.0.1:{self.port}", model="m", engine="vllm",
            max_parallel=4, host="here", pid=1, job_id="1", started=self.name, key_id="x",
        )  # fmt: skip

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        runner = web.ServerRunner(
            web.Server(self._answer, handler_cancellation=True), shutdown_timeout=0.1
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self._started.set()
        await self._stopping.wait()
        await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response(status=200 if self.healthy else 503)
        if request.path == COUNTS:
            if request.headers.get("Authorization") != WITH_KEY["Authorization"]:
                return web.Response(status=401)
            counts = {"in_flight": 3, "requests": 7, "errors": 1, "completion_tokens": 50}
            return web.json_response(counts)
        if request.path == "/metrics":
            text = 'vllm:num_requests_waiting{a="1"} 2\nvllm:generation_tokens_total{b="2"} 90.0\n'
            return web.Response(text=text)
        body = await request.read()
        self.seen.append((request.method, request.raw_path, dict(request.headers), body))
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            while not self.hold.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.left.set()
            raise
        finally:
            self.at_work -= 1
        if self.breaks:
            assert request.transport is not None
            request.transport.abort()
        if request.path == "/stream":
            return await self._stream(request)
        return web.json_response({"by": self.name}, status=self.status, headers={"X-Own": "kept"})

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for part in range(3):
            await answer.write(f"data: {part}\n\n".encode())
            await asyncio.sleep(0.2)
        if request.query.get("break"):
            assert request.transport is not None
            request.transport.abort()
        return answer


@contextmanager
def routed(*upstreams: Upstream) -> Iterator[tuple[Router, httpx.Client]]:
    ready = [each.endpoint for each in upstreams]
    with (
        Router(lambda: ready, KEY) as router,
        httpx.Client(base_url=router.url, headers=WITH_KEY, timeout=10) as client,
    ):
        yield router, client


@pytest.fixture
def two() -> Iterator[tuple[Upstream, Upstream]]:
    both = Upstream("0"), Upstream("1")
    yield both
    for each in both:
        each.stop()


def test_requests_and_answers_pass_as_they_are(two: tuple[Upstream, Upstream]) -> None:
    one = two[0]
    body = json.dumps({"inputs": "Hé", "parameters": {"grammar": {"type": "regex"}}}).encode()
    with routed(one) as (_, client):
        answer = client.post(
            "/generate%2Fx?a=b%20c", content=body,
            headers={"Content-Type": "application/json", "X-Worker": "evil", "Cookie": "a=b"},
        )  # fmt: skip
        assert client.delete("/v1/anything").status_code == 200
        # A body in pieces, of no announced length.
        client.post("/pieces", content=iter([b"ab", b"cd"]))
    assert (answer.status_code, answer.json()) == (200, {"by": "0"})
    assert answer.headers["x-own"] == "kept"
    method, path, headers, got = one.seen[0]
    assert (method, path, got) == ("POST", "/generate%2Fx?a=b%20c", body)
    assert headers["Authorization"] == WITH_KEY["Authorization"]
    assert headers["Content-Type"] == "application/json"
    assert not {"X-Worker", "Cookie"} & set(headers)
    assert one.seen[1][0] == "DELETE"
    assert one.seen[2][3] == b"abcd"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer other"},
        {"Authorization": f"bearer {KEY}"},
    ],
)
def test_without_the_key_nothing_but_health(
    two: tuple[Upstream, Upstream], given: dict[str, str]
) -> None:
    with routed(two[0]) as (router, _):
        for path in ("/", "/v1/models", "/metrics", "/generate", "/health/x", COUNTS):
            for method in ("GET", "POST", "OPTIONS"):
                answer = httpx.request(method, router.url + path, headers=given)
                assert answer.status_code == 401, (method, path)
        assert httpx.get(f"{router.url}/health").status_code == 200
    assert two[0].seen == []


def test_the_least_busy_instance_is_asked(two: tuple[Upstream, Upstream]) -> None:
    one, other = two
    one.hold.clear()
    with routed(one, other) as (router, client), ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.post, "/slow")
        wait_until(lambda: one.at_work == 1)
        for _ in range(4):
            assert client.post("/quick").json() == {"by": "1"}
        one.hold.set()
        assert slow.result().json() == {"by": "0"}
        assert router.requests == {"0": 1, "1": 4}
        # Equally idle, they take turns: the one with fewer so far comes first.
        assert client.post("/quick").json() == {"by": "0"}
    assert router.errors == 0


def test_one_that_takes_nothing_is_passed_over(two: tuple[Upstream, Upstream]) -> None:
    draining, other = two
    draining.status = 503
    gone = Upstream("gone")
    gone.stop()
    with routed(gone, draining, other) as (router, client):
        for _ in range(6):
            assert client.post("/v1/completions", content=b"{}").json() == {"by": "1"}
    assert router.errors == 0
    assert [body for *_, body in other.seen] == [b"{}"] * 6


def test_a_request_that_breaks_instances_does_not_get_all_of_them() -> None:
    many = [Upstream(str(n)) for n in range(4)]
    for each in many:
        each.breaks = True
    with routed(*many) as (router, client):
        answer = client.post("/poison")
    assert answer.status_code == 502
    assert sum(len(each.seen) for each in many) == 2
    assert router.errors == 1
    many[1].breaks = many[2].breaks = many[3].breaks = False
    with routed(*many) as (_, client):
        assert client.post("/fine").status_code == 200
    for each in many:
        each.stop()


def test_with_nobody_there_it_says_so_and_when_to_come_back() -> None:
    with routed() as (router, client):
        answer = client.post("/v1/chat/completions")
        assert httpx.get(f"{router.url}/health").status_code == 503
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert "No instance" in answer.json()["error"]["message"]


def test_a_fleet_that_gave_up_is_503_too() -> None:
    def none() -> list[Endpoint]:
        raise FleetError("all gone")

    with Router(none, KEY) as router:
        assert httpx.get(f"{router.url}/v1/models", headers=WITH_KEY).status_code == 503


def test_streams_arrive_in_pieces_and_a_broken_one_is_no_whole_answer(
    two: tuple[Upstream, Upstream],
) -> None:
    with routed(two[0]) as (router, client):
        began = time.monotonic()
        with client.stream("GET", "/stream") as answer:
            pieces = answer.iter_raw()
            assert next(pieces) == b"data: 0\n\n"
            assert time.monotonic() - began < 0.3
            assert b"".join(pieces) == b"data: 1\n\ndata: 2\n\n"
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/stream?break=1")
        assert router.errors == 1


def test_a_client_that_leaves_ends_the_work(two: tuple[Upstream, Upstream]) -> None:
    two[0].hold.clear()
    with routed(two[0]) as (_, client):
        with pytest.raises(httpx.ReadTimeout):
            client.post("/slow", timeout=0.3)
        assert two[0].left.wait(5)


def test_a_port_is_kept_if_it_can_be(two: tuple[Upstream, Upstream]) -> None:
    with Router(list, KEY) as first:
        port = int(first.url.rpartition(":")[2])
        with Router(list, KEY, port=port) as second:
            assert second.url != first.url
    with Router(list, KEY, port=port) as third:
        assert third.url == first.url
    with pytest.raises(FleetError, match=r"192\.0\.2\.1"):
        Router(list, KEY, host="192.0.2.1")


# --- health and load


def wait_until(condition: Any, seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_health_leaves_out_what_does_not_answer_until_it_does(
    two: tuple[Upstream, Upstream],
) -> None:
    one, stranger = two
    health = Health(KEY, every=0.1).start()
    try:
        assert not health.answers(one.endpoint)
        health.watch([one.endpoint])
        wait_until(lambda: health.answers(one.endpoint))
        assert health.in_flight(one.endpoint) == 3
        one.healthy = False
        wait_until(lambda: not health.answers(one.endpoint))
        one.healthy = True
        wait_until(lambda: health.answers(one.endpoint))
        one.stop()
        wait_until(lambda: not health.answers(one.endpoint))
        two_keys = Health("another-key", every=0.1).start()
        two_keys.watch([stranger.endpoint])
        time.sleep(0.5)
        assert not two_keys.answers(stranger.endpoint), "whoever took its port wants another key"
        two_keys.stop()
    finally:
        health.stop()


def test_loads_come_from_proxy_and_engine(two: tuple[Upstream, Upstream]) -> None:
    gone = Upstream("gone")
    gone.stop()
    loads = measure([two[0].endpoint, gone.endpoint], KEY)
    assert list(loads) == [two[0].endpoint]
    load = loads[two[0].endpoint]
    assert (load.running, load.waiting) == (1, 2)
    assert (load.errors, load.tokens) == (1, 90)
    before = Load(at=load.at - 2, running=0, waiting=None, errors=0, tokens=50)
    assert load.tokens_per_second(before) == pytest.approx(20)
    assert before.tokens_per_second(load) is None


def test_metrics_are_summed_over_labels() -> None:
    text = '# HELP a\na{x="1 }"} 2\na{x="2"} 3.5\nb 1e3\nc NaNo\n'
    assert metric_sums(text) == {"a": 5.5, "b": 1000.0}
