"""TGI's stand-in is what TGI's own document says, and TGI's clients work with it and our proxy."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError

from infra.ports import listen, url_of
from infra.proxy import Proxy
from tests.engines.programs import started

# TGI's document is not ours to ship: it is looked for here, and its checks are skipped without it.
DATA = Path(os.environ.get("CCAI_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
KEY = "Inner-Key-aBcD"
FLEET_KEY = "Fleet-Key-aBcD"
MESSAGES = [{"role": "user", "content": "Say something kind"}]


@pytest.fixture(scope="module")
def tgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started(tmp_path_factory.mktemp("tgi"), "tgi", KEY, max_parallel=2) as url:
        yield url


@pytest.fixture(scope="module")
def behind_proxy(tgi: str) -> Iterator[str]:
    with proxied(tgi) as url:
        yield url


@contextmanager
def proxied(engine: str) -> Iterator[str]:
    """Run our proxy in a thread of its own."""
    loop, server = asyncio.new_event_loop(), listen("loopback")
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Proxy:
        proxy = Proxy(FLEET_KEY)
        await proxy.start(server)
        proxy.forward_to(engine, KEY)
        return proxy

    proxy = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield url_of(server)
    finally:
        asyncio.run_coroutine_threadsafe(proxy.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def ask(url: str, path: str, body: Any = None, key: str | None = KEY) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    headers |= {} if key is None else {"Authorization": f"Bearer {key}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# --- TGI's own document ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> Any:
    path = DATA / "tgi" / "openapi.json"
    if not path.exists():
        pytest.skip(f"TGI's openapi.json is not in {path.parent}; set CCAI_TEST_DATA")
    found = json.loads(path.read_text())
    for schema in walk(found):
        if schema.pop("nullable", False):  # OpenAPI 3.0's word for what JSON Schema writes so:
            kept = dict(schema)
            schema.clear()
            schema["anyOf"] = [kept, {"type": "null"}]
        if isinstance(schema.get("exclusiveMinimum"), bool):
            schema.pop("exclusiveMinimum")
    return found


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object, inner ones first."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in list(children):
        yield from walk(child)
    if isinstance(node, dict):
        yield node


def check(document: Any, name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.validate(value, schema)


GENERATE = {"inputs": "Say something", "parameters": {"max_new_tokens": 5, "details": True}}
CHAT = {"messages": MESSAGES, "max_tokens": 5, "logprobs": True, "seed": 3}


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/info", None, "Info"),
        ("/generate", GENERATE, "GenerateResponse"),
        ("/invocations", GENERATE, "SagemakerResponse"),
        ("/tokenize", {"inputs": "Say something"}, "TokenizeResponse"),
        ("/chat_tokenize", {"messages": MESSAGES}, "ChatTokenizeResponse"),
        ("/v1/chat/completions", CHAT, "ChatCompletion"),
        ("/v1/completions", {"prompt": "Say", "max_tokens": 5}, "CompletionFinal"),
    ],
)
def test_answers_are_what_the_document_says(
    tgi: str, document: Any, path: str, body: Any, name: str
) -> None:
    assert ("post" if body else "get") in document["paths"][path]
    status, text = ask(tgi, path, body)
    assert status == 200, text
    check(document, name, json.loads(text))


def test_events_refusals_and_lists_are_what_the_document_says(tgi: str, document: Any) -> None:
    for path, body, name in [
        ("/generate_stream", GENERATE, "StreamResponse"),
        ("/v1/chat/completions", {**CHAT, "stream": True}, "ChatCompletionChunk"),
    ]:
        events = ask(tgi, path, body)[1].split("\n\n")
        loaded = [json.loads(e.removeprefix("data:")) for e in events if e and "[DONE]" not in e]
        assert len(loaded) == 5
        for event in loaded:
            check(document, name, event)
    status, text = ask(tgi, "/generate", {"inputs": ""})
    assert status == 422
    check(document, "ErrorResponse", json.loads(text))
    check(document, "ModelInfo", json.loads(ask(tgi, "/v1/models")[1])["data"][0])
    check(document, "GenerateResponse", json.loads(ask(tgi, "/", GENERATE)[1])[0])


def test_it_has_every_route_of_the_document(tgi: str, document: Any) -> None:
    for path, methods in document["paths"].items():
        for method in methods:
            status, _ = ask(tgi, path, {} if method == "post" else None, key="wrong")
            assert status not in (404, 405), (method, path)


# --- what TGI refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": 0.0}, {"top_p": 1.0}, {"stop": list("abcde")}, {"max_new_tokens": 100_000}],
)
def test_its_own_api_refuses_what_openais_takes(tgi: str, parameters: dict[str, Any]) -> None:
    status, text = ask(tgi, "/generate", {"inputs": "Hi", "parameters": parameters})
    assert (status, json.loads(text)["error_type"]) == (422, "validation")


def test_it_is_overloaded_beyond_its_limit(tgi: str) -> None:
    body = {"inputs": "Hi", "parameters": {"max_new_tokens": 300}}
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(tgi, "/generate", body)[0]))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(answers) == [200, 200, 429, 429]


# --- its weak key, and ours -----------------------------------------------------------------------

GUARDED = ["/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions",
           "/tokenize", "/invocations"]  # fmt: skip
OPEN = ["/info", "/metrics", "/v1/models"]


@pytest.mark.parametrize("path", [*GUARDED, *OPEN, "/chat_tokenize"])
def test_behind_the_proxy_every_route_wants_exactly_the_key(
    tgi: str, behind_proxy: str, path: str
) -> None:
    body = None if path in OPEN else {**GENERATE, **CHAT, "prompt": "Say"}
    # TGI by itself: open, or content with the key in any case.
    assert ask(tgi, path, body, key=KEY.upper())[0] == 200
    assert ask(tgi, path, body, key=None)[0] == (401 if path in GUARDED else 200)
    wrong = [None, "wrong", FLEET_KEY.upper(), FLEET_KEY.lower(), KEY]
    assert [ask(behind_proxy, path, body, key)[0] for key in wrong] == [401] * len(wrong)
    assert ask(behind_proxy, path, body, FLEET_KEY)[0] == 200


def test_health_is_open(behind_proxy: str) -> None:
    assert ask(behind_proxy, "/health", key=None)[0] == 200


# --- its clients ----------------------------------------------------------------------------------


def test_huggingface_hub_works_through_the_proxy(behind_proxy: str) -> None:
    client = InferenceClient(model=behind_proxy, token=FLEET_KEY)
    whole = client.text_generation("Say something", max_new_tokens=5, details=True, seed=1)
    assert (whole.details.finish_reason, len(whole.details.tokens)) == ("length", 5)
    stopped = client.text_generation("Say", max_new_tokens=60, details=True, stop=["habit"])
    assert (stopped.details.finish_reason, stopped.generated_text[-5:]) == (
        "stop_sequence",
        "habit",
    )
    pieces = list(client.text_generation("Say something", max_new_tokens=5, stream=True, seed=1))
    assert "".join(pieces) == whole.generated_text
    chat = client.chat_completion(MESSAGES, max_tokens=60, seed=1, logprobs=True)
    assert (chat.choices[0].finish_reason, chat.usage.completion_tokens) == ("stop", 40)
    assert len(chat.choices[0].logprobs.content) == 40
    streamed = client.chat_completion(MESSAGES, max_tokens=5, seed=1, stream=True)
    assert "".join(e.choices[0].delta.content for e in streamed)
    with pytest.raises(HfHubHTTPError, match="401"):
        InferenceClient(model=behind_proxy, token=FLEET_KEY.lower()).chat_completion(MESSAGES)
    with pytest.raises((HfHubHTTPError, ValidationError), match=r"422|temperature"):
        client.text_generation("Hi", temperature=0.0)


def test_the_text_generation_client_works_through_the_proxy(behind_proxy: str) -> None:
    library = pytest.importorskip(
        "text_generation", reason="TGI's client is absent: pip install --no-deps text-generation"
    )
    client = library.Client(behind_proxy, headers={"Authorization": f"Bearer {FLEET_KEY}"})
    whole = client.generate("Say something", max_new_tokens=5, seed=1)
    assert whole.details.generated_tokens == 5
    pieces = [
        e.token.text for e in client.generate_stream("Say something", max_new_tokens=5, seed=1)
    ]
    assert "".join(pieces) == whole.generated_text
    assert client.chat(MESSAGES, max_tokens=5).choices[0].message.content
    stranger = library.Client(behind_proxy)
    with pytest.raises(Exception, match="missing or wrong"):
        stranger.generate("Say something")
