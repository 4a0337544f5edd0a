"""The swarm's one URL: who gets in, who waits, and `/generate` for engines that have none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import HfHubHTTPError

from ccai_core.errors import FleetError
from infra.endpoint import Endpoint
from infra.swarm_gateway import Gateway
from tests.infra.model_server import KEY, ModelServer


@asynccontextmanager
async def opened(
    endpoints: Sequence[Endpoint], *, translates: bool = True
) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    """A gateway to these (the list may change), and a client with its URL and no key."""
    with Gateway(lambda: endpoints, KEY, translates=translates) as gateway:
        async with httpx.AsyncClient(base_url=gateway.open_url, timeout=10) as client:
            yield gateway, client


def run(main: Any) -> None:
    asyncio.run(main())


# --- /generate


def test_tgis_generate_becomes_a_completion() -> None:
    async def main() -> None:
        async with ModelServer() as server, opened([server.endpoint]) as (gateway, client):
            body = {
                "inputs": "Hé", "parameters": {
                    "max_new_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40,
                    "repetition_penalty": 1.2, "seed": 3, "stop": ["###"], "truncate": None,
                    "watermark": False, "details": False, "return_full_text": True,
                },
            }  # fmt: skip
            answer = await client.post("/generate", json=body)
            assert answer.json() == {"generated_text": "Héecho Hé"}
            assert server.bodies[-1] == ("/v1/completions", {
                "model": "the/model", "prompt": "Hé", "max_tokens": 7, "temperature": 0.5,
                "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.2, "seed": 3, "stop": ["###"],
            })  # fmt: skip
            # By itself TGI is greedy, and so is what the hub's client asks for.
            hub = AsyncInferenceClient(model=gateway.open_url)
            assert await hub.text_generation("Hi", max_new_tokens=5) == "echo Hi"
            sent = server.bodies[-1][1]
            assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (0.0, 1.0, 5)
            await client.post("/generate", json={"inputs": "x", "parameters": {"do_sample": True}})
            sent = server.bodies[-1][1]
            assert (sent["temperature"], sent["max_tokens"]) == (1.0, 100)
            grammar = {"type": "regex", "value": "a+"}
            await client.post("/generate", json={"inputs": "x", "parameters": {"grammar": grammar}})
            assert server.bodies[-1][1]["structured_outputs"] == {"regex": "a+"}

    run(main)


def test_the_old_vllm_servers_generate_becomes_a_completion() -> None:
    async def main() -> None:
        async with ModelServer() as server, opened([server.endpoint]) as (_, client):
            body = {"prompt": "Hi", "n": 1, "stop": "."}
            answer = await client.post("/generate", json=body)
            assert answer.json() == {"text": ["Hiecho Hi"]}
            sent = server.bodies[-1][1]
            assert (sent["max_tokens"], sent["temperature"], sent["stop"]) == (16, 1.0, ["."])

    run(main)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": "x", "stream": True}, "stream"),
        ({"inputs": "x", "parameters": {"details": True}}, "details"),
        ({"inputs": "x", "parameters": {"typical_p": 0.9}}, "typical_p"),
        ({"inputs": "x", "parameters": {"no_such": 1}}, "no_such"),
        ({"inputs": "x", "parameters": {"temperature": 9}}, "temperature"),
        ({"inputs": ["x"]}, "prompt"),
        ({"prompt": "x", "n": 2}, "n:"),
        ({"prompt": "x", "use_beam_search": True}, "use_beam_search"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_not_dropped(body: dict[str, Any], said: str) -> None:
    async def main() -> None:
        async with ModelServer() as server, opened([server.endpoint]) as (_, client):
            answer = await client.post("/generate", json=body)
            assert answer.status_code == 422
            assert said in answer.json()["error"]["message"]
            assert server.bodies == []

    run(main)


def test_an_engine_is_not_asked_for_what_it_has_not() -> None:
    async def main() -> None:
        async with (
            ModelServer(engine="transformers") as server,
            opened([server.endpoint]) as (_, client),
        ):
            asked = {"top_k": 5, "grammar": {"type": "regex", "value": "a"}}
            answer = await client.post("/generate", json={"inputs": "x", "parameters": asked})
            assert answer.status_code == 422
            assert "no grammar, top_k" in answer.json()["error"]["message"]

    run(main)


def test_what_is_no_such_request_passes_as_it_is() -> None:
    async def main() -> None:
        async with ModelServer(engine="tgi") as server:
            async with opened([server.endpoint], translates=False) as (_, client):
                answer = await client.post("/generate", json={"inputs": "x", "parameters": {}})
                assert "details" in answer.json(), "TGI's own answer"
            async with opened([server.endpoint]) as (_, client):
                await client.post("/generate", json={"text": "sglang's", "parameters": {}})
                assert server.bodies[-1][0] == "/generate"
                said = [{"role": "user", "content": "Hi"}]
                answer = await client.post("/v1/chat/completions?x=1", json={
                    "model": "the/model", "messages": said})  # fmt: skip
                assert answer.json()["choices"][0]["message"]["content"] == "echo Hi"

    run(main)


# --- waiting


def test_beyond_the_instances_room_requests_wait_in_order() -> None:
    async def main() -> None:
        async with ModelServer(max_parallel=2) as server, opened([server.endpoint]) as (_, client):
            server.gate.clear()
            asks = []
            for number in range(6):
                body = {"inputs": str(number)}
                asks.append(asyncio.create_task(client.post("/generate", json=body)))
                await asyncio.sleep(0.1)
            assert len(server.running) == 2
            # Who leaves the queue makes no hole in it.
            asks[3].cancel()
            # Its connection has to be seen to close first, on a machine that does other things too.
            await asyncio.sleep(1)
            server.gate.set()
            answers = await asyncio.gather(*asks, return_exceptions=True)
            assert [each.status_code for n, each in enumerate(answers) if n != 3] == [200] * 5
            assert server.most_running == 2
            assert server.done == ["0", "1", "2", "4", "5"]

    run(main)


def test_many_that_wait_cost_no_more_than_one() -> None:
    async def main() -> None:
        asked, ready = 0, list[Endpoint]()

        def endpoints() -> list[Endpoint]:
            nonlocal asked
            asked += 1
            return ready

        async with ModelServer() as server, httpx.AsyncClient(timeout=20) as client:
            with Gateway(endpoints, KEY, translates=True) as gateway:
                url = f"{gateway.open_url}/generate"
                asks = [
                    asyncio.create_task(client.post(url, json={"inputs": "x"})) for _ in "x" * 40
                ]
                await asyncio.sleep(1)
                assert asked < 40
                ready.append(server.endpoint)
                assert {each.status_code for each in await asyncio.gather(*asks)} == {200}

    run(main)


def test_without_an_instance_a_request_waits_until_there_is_one_or_none_will_come() -> None:
    async def main() -> None:
        ready: list[Endpoint] = []
        async with ModelServer() as server, opened(ready) as (gateway, client):
            waits = asyncio.create_task(client.post("/generate", json={"inputs": "x"}))
            await asyncio.sleep(0.3)
            assert not waits.done()
            assert (await client.get("/health")).status_code == 503
            with_key = {"Authorization": f"Bearer {KEY}"}
            by_key = await client.get(f"{gateway.url}/info", headers=with_key)
            assert by_key.status_code == 503, "who knows of fleets hears of it"
            ready.append(server.endpoint)
            assert (await waits).status_code == 200

        def gone() -> list[Endpoint]:
            raise FleetError("Fleet x: no instance stays up.")

        with Gateway(gone, KEY, translates=True) as gateway:
            answer = httpx.post(f"{gateway.open_url}/generate", json={"inputs": "x"})
            assert answer.status_code == 503
            assert "no instance stays up" in answer.text

    run(main)


def test_a_request_survives_its_only_instance_but_not_two() -> None:
    async def main() -> None:
        async def dies(server: ModelServer, request: web.Request) -> None:
            await server.die()
            await asyncio.sleep(1)

        async with ModelServer("a", fault=dies) as first, ModelServer("b") as second:
            ready = [first.endpoint]
            async with opened(ready) as (_, client):
                asks = asyncio.create_task(client.post("/generate", json={"inputs": "x"}))
                await asyncio.sleep(0.2)
                ready[:] = [second.endpoint]
                assert (await asks).json() == {"generated_text": "echo x"}
        async with (
            ModelServer("a", fault=dies) as first,
            ModelServer("b", fault=dies) as second,
            opened([first.endpoint, second.endpoint]) as (_, client),
        ):
            answer = await client.post("/generate", json={"inputs": "poison"})
            assert answer.status_code == 502

    run(main)


def test_an_answer_that_is_none_is_an_error_not_a_text() -> None:
    async def main() -> None:
        async def empty(server: ModelServer, request: web.Request) -> web.Response:
            return web.json_response({"choices": []})

        async with ModelServer(fault=empty) as server, opened([server.endpoint]) as (gateway, _):
            client = AsyncInferenceClient(model=gateway.open_url)
            with pytest.raises(HfHubHTTPError, match="500"):
                await client.text_generation("x")

    run(main)
