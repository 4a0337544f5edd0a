import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from ccai_core.errors import EngineError, FleetError
from infra.client import ChatAnswer, ChatMessage, ChatRequest, Client, ClientConfig
from infra.client_connection import Connection
from infra.client_pool import Pool
from infra.endpoint import Endpoint
from tests.infra.model_server import KEY, ModelServer

QUICK = ClientConfig(
    backoff_seconds=0.001, refresh_seconds=0.02, leave_seconds=0.05, wait_seconds=0.3,
    rest_seconds=0.05, timeout_seconds=5.0, seconds_per_token=0.0,
)  # fmt: skip

Body = Callable[[AsyncExitStack], Awaitable[None]]


def run(body: Body) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), AsyncExitStack() as stack:
            await body(stack)

    asyncio.run(main())


def ask(text: str, **options: Any) -> ChatRequest:
    return ChatRequest(messages=(ChatMessage(role="user", content=text),), **options)


async def start(stack: AsyncExitStack, *names: str, **options: Any) -> list[ModelServer]:
    return [await stack.enter_async_context(ModelServer(name, **options)) for name in names]


async def client_of(
    stack: AsyncExitStack, servers: list[ModelServer], **changes: Any
) -> tuple[Client, list[Endpoint]]:
    """A client, and the list of endpoints that it sees: change it to let them join and leave."""
    present = [each.endpoint for each in servers]
    config = QUICK.model_copy(update=changes)
    return await stack.enter_async_context(Client(lambda: present, KEY, config)), present


async def chats(client: Client, count: int, **options: Any) -> list[ChatAnswer]:
    return await asyncio.gather(
        *(client.chat(ask(f"q{i}", **options), affinity=f"e{i}") for i in range(count))
    )


def texts(answers: list[ChatAnswer]) -> list[str]:
    return [each.text for each in answers]


def echoes(count: int) -> list[str]:
    return [f"echo q{i}" for i in range(count)]


def answers_with(status: int, times: int, **headers: str) -> Any:
    """A fault: the first calls get this status."""
    left = [times]

    async def fault(_: ModelServer, request: web.Request) -> web.Response | None:
        if left[0] <= 0:
            return None
        left[0] -= 1
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response({"error": {"message": "not now"}}, status=status, headers=sent)

    return fault


def test_calls_are_spread_and_their_answers_complete() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b")
        client, _ = await client_of(stack, servers)
        answers = await chats(client, 40)
        assert texts(answers) == echoes(40)
        assert {(each.finish_reason, each.completion_tokens) for each in answers} == {("stop", 2)}
        assert [len(each.done) for each in servers] == [20, 20]
        rows = client.statistics().endpoints
        assert [(each.instance, each.answered, each.in_flight) for each in rows] == [
            ("a", 20, 0), ("b", 20, 0),
        ]  # fmt: skip
        assert all(each.tokens_per_second > 0 and each.circuit == "closed" for each in rows)

    run(body)


def test_an_episode_stays_on_one_endpoint() -> None:
    async def body(stack: AsyncExitStack) -> None:
        client, _ = await client_of(stack, await start(stack, "a", "b"))
        homes: dict[str, set[str]] = {"x": set(), "y": set()}
        for episode in "xyxxxyy":
            homes[episode].add((await client.chat(ask("hi"), episode)).endpoint)
        assert [len(each) for each in homes.values()] == [1, 1]
        assert homes["x"] != homes["y"]

    run(body)


def test_an_episode_stays_on_one_endpoint_though_all_are_busy() -> None:
    async def body(stack: AsyncExitStack) -> None:
        pauses = random.Random(7)

        async def dawdle(_: ModelServer, __: web.Request) -> None:
            await asyncio.sleep(pauses.uniform(0, 0.01))

        servers = await start(stack, "a", "b", "c", max_parallel=4, fault=dawdle)
        client, _ = await client_of(stack, servers)

        async def episode(number: int) -> set[str]:
            calls = [client.chat(ask(f"{number}.{i}"), f"e{number}") for i in range(6)]
            return {(await call).endpoint for call in calls}

        homes = await asyncio.gather(*(episode(i) for i in range(24)))
        assert sum(len(each) == 1 for each in homes) >= 20
        assert all(each.most_running <= 4 and len(each.done) >= 30 for each in servers)

    run(body)


def test_an_episode_moves_when_its_endpoint_is_much_more_loaded() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b", max_parallel=8)
        client, present = await client_of(stack, servers)
        del present[1]
        await client.chat(ask("first"), "episode")  # at home on a
        servers[0].gate.clear()
        busy = [asyncio.create_task(client.chat(ask("busy"), f"o{i}")) for i in range(8)]
        await servers[0].has_running(8)
        present.append(servers[1].endpoint)
        answer = await client.chat(ask("second"), "episode")
        assert answer.endpoint == servers[1].endpoint.url
        servers[0].gate.set()
        await asyncio.gather(*busy)

    run(body)


def test_too_many_requests_halve_the_limit_which_grows_again() -> None:
    async def body(stack: AsyncExitStack) -> None:
        async def at_most_four(server: ModelServer, _: web.Request) -> web.Response | None:
            await asyncio.sleep(0)
            return web.Response(status=429) if len(server.running) > 4 else None

        servers = await start(stack, "a", max_parallel=32, fault=at_most_four)
        client, _ = await client_of(stack, servers, attempts=20)
        assert texts(await chats(client, 100)) == echoes(100)
        low = client.statistics().endpoints[0]
        assert low.limit <= 8
        assert low.circuit == "closed"
        assert low.failed > 0
        servers[0].fault = None
        await chats(client, 150)
        assert client.statistics().endpoints[0].limit > low.limit

    run(body)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a", fault=answers_with(status, 1, Retry_After="0.3"))
        client, _ = await client_of(stack, [server], wait_seconds=5.0)
        began = time.monotonic()
        answer = await client.chat(ask("hello"))
        assert (answer.text, answer.attempts) == ("echo hello", 2)
        assert 0.28 < time.monotonic() - began < 2

    run(body)


def test_while_all_are_queued_again_a_call_waits_as_long_as_it_is_told() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a")
        client, present = await client_of(stack, [server], wait_seconds=0.1, absent_seconds=60.0)
        assert (await client.chat(ask("one"))).text == "echo one"
        gone = [present.pop()]
        call = asyncio.create_task(client.chat(ask("two")))
        await asyncio.sleep(0.5)
        assert not call.done()
        present += gone
        assert (await call).text == "echo two"
        # One that is there and does not answer is ill, and is waited for no longer than before.
        server.fault = answers_with(500, 1000)
        with pytest.raises(FleetError, match=r"for 0 s there was no endpoint"):
            await asyncio.gather(*(client.chat(ask(f"q{n}")) for n in range(50)))

    run(body)


def test_another_endpoint_answers_what_one_cannot_at_once() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b")
        servers[0].fault = answers_with(429, 1, Retry_After="60")
        client, _ = await client_of(stack, servers)
        assert texts(await chats(client, 12)) == echoes(12)
        assert client.statistics().endpoints[0].rests_seconds > 30

    run(body)


def test_a_failed_call_goes_to_the_other_endpoint_though_that_is_busier() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b")
        client, present = await client_of(stack, servers)
        servers[1].gate.clear()
        del present[0]
        busy = [asyncio.create_task(client.chat(ask("busy"))) for _ in range(5)]
        await servers[1].has_running(5)
        servers[0].fault = answers_with(500, 1)
        present.append(servers[0].endpoint)
        call = asyncio.create_task(client.chat(ask("hello")))
        await servers[1].has_running(6)
        assert len(servers[0].bodies) == 1
        servers[1].gate.set()
        assert (await call).endpoint == servers[1].endpoint.url
        await asyncio.gather(*busy)

    run(body)


async def hang(server: ModelServer, _: web.Request) -> None:
    await asyncio.Event().wait()


async def reset_mid_body(_: ModelServer, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def not_json(_: ModelServer, __: web.Request) -> web.Response:
    return web.Response(text="<html>it works</html>")


async def not_an_answer(_: ModelServer, __: web.Request) -> web.Response:
    return web.json_response(["choices"])


async def no_choices(_: ModelServer, __: web.Request) -> web.Response:
    return web.json_response({"choices": []})


async def aborted(_: ModelServer, __: web.Request) -> web.Response:
    choice = {"message": {"content": "half of"}, "finish_reason": "abort", "index": 0}
    return web.json_response({"choices": [choice]})


async def failing(_: ModelServer, __: web.Request) -> web.Response:
    return web.json_response(["it", "broke"], status=500)


FAULTS = [hang, reset_mid_body, not_json, not_an_answer, no_choices, aborted, failing]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_endpoint_costs_no_answer(fault: Any) -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b")
        servers[0].fault = fault
        limit = 1.0 if fault is hang else 10.0
        client, _ = await client_of(
            stack, servers, timeout_seconds=limit, rest_seconds=30.0, wait_seconds=10.0
        )
        assert texts(await chats(client, 20)) == echoes(20)
        first = client.statistics().endpoints[0]
        assert (first.answered, first.circuit) == (0, "open")
        assert first.failed >= 3
        assert texts(await chats(client, 20)) == echoes(20)
        assert client.statistics().endpoints[0].failed == first.failed  # it rests

    run(body)


def test_a_call_that_fails_everywhere_is_an_error_with_its_reason() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b", fault=aborted)
        client, _ = await client_of(stack, servers, attempts=3, failures=9)
        answer = await client.chat(ask("hello"))
        assert (answer.finish_reason, answer.text, answer.attempts) == ("error", "", 3)
        assert "abort" in answer.reason
        assert sorted(len(each.bodies) for each in servers) == [1, 2]  # never twice in a row

    run(body)


def test_a_mistake_of_the_caller_is_not_sent_again() -> None:
    async def body(stack: AsyncExitStack) -> None:
        async def too_long(_: ModelServer, __: web.Request) -> web.Response:
            said = {"error": {"message": "maximum context length is 2048 tokens", "code": 400}}
            return web.json_response(said, status=400)

        servers = await start(stack, "a", "b", fault=too_long)
        client, _ = await client_of(stack, servers)
        answer = await client.chat(ask("hello"))
        assert (answer.finish_reason, answer.attempts) == ("error", 1)
        assert "HTTP 400: maximum context length is 2048 tokens" in answer.reason
        assert sum(len(each.bodies) for each in servers) == 1

    run(body)


def test_a_refused_field_is_named_and_the_prompt_not_repeated() -> None:
    async def body(stack: AsyncExitStack) -> None:
        async def unprocessable(_: ModelServer, __: web.Request) -> web.Response:
            wrong = {"loc": ["body", "top_k"], "msg": "Extra inputs", "input": "SECRET PROMPT"}
            return web.json_response({"detail": [wrong]}, status=422)

        servers = await start(stack, "a", fault=unprocessable)
        client, _ = await client_of(stack, servers)
        reason = (await client.chat(ask("SECRET PROMPT"))).reason
        assert "top_k" in reason
        assert "SECRET" not in reason

    run(body)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_at_once(status: int) -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b", fault=answers_with(status, 9))
        client, _ = await client_of(stack, servers)
        with pytest.raises(FleetError, match="refuses the fleet's key"):
            await client.chat(ask("hello"))
        assert sum(len(each.bodies) for each in servers) == 1

    run(body)


def test_the_key_is_the_fleets_whatever_hub_token_there_is(monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_private")

    async def body(stack: AsyncExitStack) -> None:
        seen = []

        async def look(_: ModelServer, request: web.Request) -> None:
            seen.append(dict(request.headers))

        servers = await start(stack, "a", fault=look)
        client, _ = await client_of(stack, servers)
        await client.chat(ask("hello"))
        assert seen[0]["Authorization"] == f"Bearer {KEY}"
        assert "hf_private" not in str(seen)
        with pytest.raises(FleetError, match="without its API key"):
            Client(list, "")

    run(body)


def test_an_endpoint_that_dies_in_flight_loses_no_call_and_doubles_none() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b")
        client, _ = await client_of(stack, servers)
        for each in servers:
            each.gate.clear()
        calls = asyncio.create_task(chats(client, 40))
        await asyncio.gather(*(each.has_running(20) for each in servers))
        await servers[0].die()
        servers[1].gate.set()
        assert texts(await calls) == echoes(40)
        assert sorted(servers[1].done) == sorted(f"q{i}" for i in range(40))

    run(body)


def test_calls_on_an_endpoint_that_left_go_elsewhere() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b")
        client, present = await client_of(stack, servers)
        servers[0].gate.clear()
        calls = asyncio.create_task(chats(client, 20))
        await servers[0].has_running(10)
        del present[0]  # it hangs, and is no longer registered
        answers = await calls
        assert texts(answers) == echoes(20)
        assert {each.attempts for each in answers} == {1}  # leaving is no failure of the call
        assert [each.instance for each in client.statistics().endpoints] == ["b"]

    run(body)


def test_calls_may_end_on_an_endpoint_that_has_just_left() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b")
        client, present = await client_of(stack, servers, leave_seconds=30.0)
        servers[0].gate.clear()
        calls = asyncio.create_task(chats(client, 20))
        await servers[0].has_running(10)
        del present[0]
        assert (await client.chat(ask("new"), "e0")).endpoint == servers[1].endpoint.url
        servers[0].gate.set()
        await calls
        assert [len(each.done) for each in servers] == [10, 11]

    run(body)


def test_an_endpoint_that_joins_takes_its_share_of_what_waits() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b", max_parallel=4)
        client, present = await client_of(stack, servers[:1])
        for each in servers:
            each.gate.clear()
        calls = asyncio.create_task(chats(client, 12))
        await servers[0].has_running(4)
        assert client.statistics().waiting == 8
        present.append(servers[1].endpoint)
        await servers[1].has_running(4)
        for each in servers:
            each.gate.set()
        assert texts(await calls) == echoes(12)

    run(body)


def test_it_waits_for_the_first_endpoint_and_not_for_ever() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a")
        client, present = await client_of(stack, [])
        call = asyncio.create_task(client.chat(ask("early")))
        await asyncio.sleep(0.05)
        present.append(server.endpoint)
        assert (await call).text == "echo early"
        present.clear()
        with pytest.raises(FleetError, match="there was no endpoint that does"):
            await client.chat(ask("late"))

    run(body)


def test_a_fleet_whose_endpoints_all_fail_is_named_with_their_states() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", fault=failing)
        client, _ = await client_of(stack, servers, attempts=50, rest_seconds=30.0)
        with pytest.raises(FleetError, match=r"a at http.*circuit open, 3 failures.*HTTP 500"):
            await client.chat(ask("hello"))

    run(body)


def test_a_circuit_is_tried_by_one_call_and_closes_on_its_answer() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a", fault=answers_with(500, 4))
        client, _ = await client_of(stack, [server], wait_seconds=5.0)
        answers = await chats(client, 2)
        assert texts(answers) == echoes(2)
        # Two calls and one of them again open it; then one at a time tries: a failure, an answer.
        assert max(each.attempts for each in answers) == 3
        assert len(server.bodies) == 4 + 2
        assert client.statistics().endpoints[0].circuit == "closed"

    run(body)


def test_a_cancelled_call_frees_its_place_and_its_request() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a", max_parallel=1)
        client, _ = await client_of(stack, [server])
        server.gate.clear()
        first = asyncio.create_task(client.chat(ask("first")))
        await server.has_running(1)
        waiting = [asyncio.create_task(client.chat(ask(f"w{i}"))) for i in range(3)]
        await asyncio.sleep(0)
        for each in (waiting[1], first):
            each.cancel()
        results = await asyncio.gather(first, waiting[1], return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in results)
        server.gate.set()
        assert [(await waiting[i]).text for i in (0, 2)] == ["echo w0", "echo w2"]
        [row] = client.statistics().endpoints
        assert (row.in_flight, row.failed, client.statistics().waiting) == (0, 0, 0)

    run(body)


def test_a_place_given_in_the_moment_of_a_cancel_is_not_lost() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a", max_parallel=1)
        pool = Pool(lambda: [server.endpoint], lambda each: Connection(each, KEY, 1.0), QUICK)
        stack.push_async_callback(pool.aclose)
        first = await pool.take(None, set(), 0)
        second = asyncio.create_task(pool.take(None, set(), 0))
        await asyncio.sleep(0)
        assert pool.waiting == 1
        pool.give_back(*first)
        second.cancel()
        await asyncio.wait([second])
        assert second.cancelled()
        async with asyncio.timeout(1):
            await pool.take(None, set(), 0)

    run(body)


def test_closing_ends_what_waits_and_what_is_in_flight() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a", max_parallel=1)
        server.gate.clear()
        async with Client(lambda: [server.endpoint], KEY, QUICK) as client:
            calls = [asyncio.create_task(client.chat(ask(f"q{i}"))) for i in range(2)]
            await server.has_running(1)
        async with asyncio.timeout(1):
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in results] == [EngineError, EngineError]

    run(body)


def test_a_disk_that_is_away_for_a_moment_loses_no_endpoint() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a")
        away = [False]

        def endpoints() -> list[Endpoint]:
            if away[0]:
                raise OSError("stale file handle")
            return [server.endpoint]

        client = await stack.enter_async_context(Client(endpoints, KEY, QUICK))
        await client.chat(ask("one"))
        away[0] = True
        await asyncio.sleep(0.06)
        assert (await client.chat(ask("two"))).text == "echo two"

    run(body)


def test_offline_mode_and_proxies_of_the_hub_are_not_obeyed(monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a")
        client, _ = await client_of(stack, servers)
        assert (await client.chat(ask("hello"))).text == "echo hello"

    run(body)


def test_more_than_a_hundred_calls_run_at_once_on_one_endpoint() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a", max_parallel=160)
        client, _ = await client_of(stack, [server])
        server.gate.clear()
        calls = asyncio.create_task(chats(client, 160))
        await server.has_running(160)
        server.gate.set()
        assert texts(await calls) == echoes(160)

    run(body)


def test_room_is_what_new_episodes_would_find_and_a_few_more_may_wait() -> None:
    async def body(stack: AsyncExitStack) -> None:
        servers = await start(stack, "a", "b", max_parallel=8)
        client, _ = await client_of(stack, servers)
        assert client.room is None  # nobody was looked for yet
        await client.chat(ask("first"))
        free = client.room
        assert free is not None
        assert 16 < free <= 16 + 8
        for each in servers:
            each.gate.clear()
        busy = [asyncio.create_task(client.chat(ask(f"q{i}"), f"e{i}")) for i in range(free)]
        await asyncio.gather(*(each.has_running(8) for each in servers))
        assert client.room == 0
        for each in servers:
            each.gate.set()
        await asyncio.gather(*busy)
        assert client.room == free

    run(body)


def test_a_place_goes_to_an_episode_that_has_begun_before_a_new_one() -> None:
    async def body(stack: AsyncExitStack) -> None:
        [server] = await start(stack, "a", max_parallel=1)
        client, _ = await client_of(stack, [server])
        await client.chat(ask("old 1"), "old")
        server.gate.clear()
        calls = [asyncio.create_task(client.chat(ask("busy"), "busy"))]
        await server.has_running(1)
        for text, episode in [("new", "new"), ("old 2", "old")]:
            calls.append(asyncio.create_task(client.chat(ask(text), episode)))
            await asyncio.sleep(0.01)
        server.gate.set()
        await asyncio.gather(*calls)
        assert server.done == ["old 1", "busy", "old 2", "new"]

    run(body)
