import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ccai_core.errors import EngineError
from infra.client import ChatAnswer, ChatMessage, ChatRequest, Client, Grammar, TokenLogprob
from infra.client_connection import Render
from infra.cluster import EngineName
from infra.engines import engine
from tests.infra.model_server import KEY, ModelServer

TGI_SCHEMA = Path(__file__).parents[3] / "shared" / "data" / "tgi" / "openapi.json"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def ask(**options: Any) -> ChatRequest:
    messages = (ChatMessage(role="system", content="Be."), ChatMessage(role="user", content="hi"))
    return ChatRequest(messages=messages, **options)


def send(
    server: ModelServer, *requests: ChatRequest, render: Render | None = None
) -> list[tuple[ChatAnswer, str, dict[str, Any]]]:
    """Each answer, with the route and the body that the server saw."""

    async def main() -> list[ChatAnswer]:
        async with server, Client(lambda: [server.endpoint], KEY, render=render) as client:
            return [await client.chat(each) for each in requests]

    answers = asyncio.run(main())
    return [(a, *seen) for a, seen in zip(answers, server.bodies, strict=True)]


def template(messages: Any) -> str:
    return "|".join(f"{each.role}:{each.content}" for each in messages)


def test_a_chat_says_what_is_asked_and_nothing_else() -> None:
    request = ask(max_tokens=9, temperature=0, top_p=0.9, seed=0, stop=("END",))
    [(answer, route, body)] = send(ModelServer(), request)
    assert route == "/v1/chat/completions"
    assert body == {
        "model": "the/model",
        "messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "hi"}],
        "max_tokens": 9, "temperature": 0, "top_p": 0.9, "seed": 0, "stop": ["END"],
        "stream": False, "repetition_penalty": 1.0,
    }  # fmt: skip
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("echo hi", 3, 2)
    assert answer.logprobs is None


def test_a_schema_is_sent_in_the_form_that_the_engine_reads() -> None:
    """The hub's client turns `json_schema` into that of old TGI, for others 'any JSON'."""
    grammar = Grammar(json_schema=SCHEMA)
    [(_, _, body)] = send(ModelServer(engine="tgi"), ask(grammar=grammar))
    assert body["response_format"] == {"type": "json", "value": SCHEMA}
    [(_, _, body)] = send(ModelServer(engine="vllm"), ask(grammar=grammar))
    assert body["structured_outputs"] == {"json": SCHEMA}
    [(_, _, body)] = send(ModelServer(engine="vllm"), ask(grammar=Grammar(regex="a+")))
    assert body["structured_outputs"] == {"regex": "a+"}


@pytest.mark.parametrize("name", ["tgi", "vllm", "sglang", "transformers", "llamacpp"])
@pytest.mark.parametrize(
    "options",
    [{"logprobs": True}, {"grammar": Grammar(json_schema=SCHEMA)}, {"repetition_penalty": 1.2}],
    ids=str,
)
def test_an_option_is_sent_or_refused_as_the_engine_is_able(
    name: EngineName, options: dict[str, Any]
) -> None:
    server = ModelServer(engine=name)
    [option] = options
    if option in engine(name).capabilities:
        [(answer, _, body)] = send(server, ask(**options), render=template)
        assert answer.finish_reason == "stop"
        assert option in body or '"properties": {"a"' in json.dumps(body)
    else:
        with pytest.raises(EngineError, match=rf"'{name}'.*cannot do {option}.*can: .*vllm"):
            send(server, ask(**options))
        assert server.bodies == []


def test_forms_that_an_engine_would_ignore_are_refused() -> None:
    with pytest.raises(EngineError, match=r"'llamacpp'.*cannot take a regular expression"):
        send(ModelServer(engine="llamacpp"), ask(grammar=Grammar(regex="a+")))
    raw = ChatRequest(prompt="p", grammar=Grammar(regex="a+"))
    with pytest.raises(EngineError, match=r"'sglang'.*cannot take a grammar for a raw prompt"):
        send(ModelServer(engine="sglang"), raw)
    [(_, _, body)] = send(ModelServer(engine="sglang"), ask(grammar=Grammar(regex="a+")))
    assert body["regex"] == "a+"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "filtered"),
        ("eos_token", "stop"),
        ("stop_sequence", "stop"),
    ],
)
def test_why_an_answer_ended_is_told_truly(said: str, meant: str) -> None:
    server = ModelServer(engine="tgi")
    server.finish = said
    [(answer, _, _)] = send(server, ask())
    assert answer.finish_reason == meant
    assert answer.text == "echo hi"


def test_logprobs_come_by_token() -> None:
    [(answer, _, _)] = send(ModelServer(), ask(logprobs=True))
    assert answer.logprobs == (TokenLogprob("echo", -0.5), TokenLogprob("x", -1.0))
    [(answer, _, _)] = send(ModelServer(engine="tgi"), ChatRequest(prompt="raw", logprobs=True))
    assert answer.logprobs == (TokenLogprob("echo", -0.5),) * 2


def test_a_raw_prompt_has_no_template_put_on() -> None:
    [(answer, route, body)] = send(ModelServer(), ChatRequest(prompt="Once", max_tokens=4))
    assert (route, body["prompt"], body["max_tokens"]) == ("/v1/completions", "Once", 4)
    assert answer.text == "echo Once"


def test_tgi_gets_raw_prompts_by_its_own_route() -> None:
    request = ChatRequest(prompt="Once", max_tokens=4, temperature=0, seed=0, stop=("END",))
    server = ModelServer(engine="tgi")
    server.finish = "stop_sequence"
    [(answer, route, body)] = send(server, request)
    assert (route, body["inputs"]) == ("/generate", "Once")
    sent = body["parameters"]
    assert sent["max_new_tokens"] == 4
    assert sent["do_sample"] is False
    assert "temperature" not in sent  # TGI wants it above 0 ...
    assert "top_p" not in sent  # ... and this below 1 ...
    assert sent["seed"] == 1  # ... and a seed above 0
    assert (answer.text, answer.finish_reason) == ("echo Once", "stop")  # END is taken off
    assert answer.completion_tokens == 2


def test_old_tgi_gets_messages_as_a_rendered_prompt() -> None:
    [(answer, route, body)] = send(
        ModelServer(engine="tgi", version="1.3.4"), ask(repetition_penalty=1.3), render=template
    )
    assert (route, body["inputs"]) == ("/generate", "system:Be.|user:hi")
    assert body["parameters"]["repetition_penalty"] == 1.3
    assert answer.finish_reason == "stop"
    with pytest.raises(EngineError, match=r"older than 1\.4.*render"):
        send(ModelServer(engine="tgi", version="1.3.4"), ask())


@pytest.mark.parametrize("version", ["1.4.0", "2.0.1", "3.3.6-dev0", "10.0"])
def test_newer_tgi_gets_messages_by_its_chat_route(version: str) -> None:
    [(_, route, body)] = send(ModelServer(engine="tgi", version=version), ask())
    assert route == "/v1/chat/completions"
    assert "repetition_penalty" not in body


@pytest.mark.skipif(not TGI_SCHEMA.exists(), reason="TGI's published schema is not here")
def test_what_tgi_gets_is_in_its_published_schema() -> None:
    schemas = json.loads(TGI_SCHEMA.read_text())["components"]["schemas"]
    options = {"seed": 0, "stop": ("a",), "logprobs": True, "grammar": Grammar(regex="a+")}
    [(_, _, chat), (_, _, raw)] = send(
        ModelServer(engine="tgi"),
        ask(**options),
        ChatRequest(prompt="p", repetition_penalty=1.1, temperature=0.5, top_p=0.5, **options),
    )
    assert set(chat) <= set(schemas["ChatRequest"]["properties"])
    assert set(raw) <= {"inputs", "parameters", "stream"}
    known = schemas["GenerateParameters"]["properties"]
    assert set(raw["parameters"]) <= set(known)
    assert raw["parameters"]["seed"] > known["seed"]["exclusiveMinimum"]


def score(server: ModelServer, token_ids: list[int]) -> list[float | None]:
    async def main() -> list[float | None]:
        async with server, Client(lambda: [server.endpoint], KEY) as client:
            return await client.prompt_logprobs(token_ids)

    return asyncio.run(main())


def test_prompt_logprobs_are_one_for_each_token() -> None:
    server = ModelServer()
    assert score(server, [7, 8, 9]) == [None, -8.0, -9.0]
    [(route, body)] = server.bodies
    assert route == "/v1/completions"
    assert (body["prompt"], body["echo"], body["model"]) == ([7, 8, 9], True, "the/model")


def test_an_engine_that_cannot_weigh_prompts_says_which_can() -> None:
    with pytest.raises(EngineError, match=r"'tgi'.*cannot do scoring.*can: .*vllm"):
        score(ModelServer(engine="tgi"), [7, 8])
    with pytest.raises(EngineError, match="no tokens"):
        score(ModelServer(), [])


def test_a_request_is_messages_or_a_prompt() -> None:
    for wrong in ({}, {"prompt": "p", "messages": ask().messages}):
        with pytest.raises(ValidationError, match="one of them"):
            ChatRequest(**wrong)
    with pytest.raises(ValidationError, match="one of them"):
        Grammar()
