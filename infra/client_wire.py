"""The two wire formats, OpenAI's and TGI's own, and in what each engine departs from them.

What is sent: `chat_fields`, `completion_fields`, `generate_fields`, `scoring_fields`. What comes
back: `read_chat`, `read_completion`, `read_generated`, `read_scores`, which raise `CallError` for
anything that is not what was asked for. `max_tokens` (not `max_completion_tokens`) is the one name
that all five engines know.

    answer = read_chat(output, request, endpoint)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.client_protocol import CallError, ChatAnswer, ChatRequest, FinishReason, TokenLogprob
from infra.cluster import EngineName
from infra.endpoint import Endpoint
from infra.engines import engine

# OpenAI's words, and TGI's (which come through its chat route too).
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "filtered",
    "eos_token": "stop",
    "stop_sequence": "stop",
}


def chat_fields(request: ChatRequest, endpoint: Endpoint) -> dict[str, Any]:
    """Return the body of POST /v1/chat/completions."""
    body = {
        "model": endpoint.model,
        "messages": [{"role": each.role, "content": each.content} for each in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": _top_p(request, endpoint.engine),
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "logprobs": request.logprobs or None,
        "stream": False,
        **_extras(request, endpoint.engine),
    }
    return {name: value for name, value in body.items() if value is not None}


def completion_fields(request: ChatRequest, endpoint: Endpoint) -> dict[str, Any]:
    """Return the body of POST /v1/completions for a raw prompt."""
    body = {
        "model": endpoint.model,
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "logprobs": 0 if request.logprobs else None,
        **_extras(request, endpoint.engine),
    }
    return {name: value for name, value in body.items() if value is not None}


def generate_fields(request: ChatRequest) -> dict[str, Any]:
    """Return the arguments of `AsyncInferenceClient.text_generation`, the prompt aside (TGI)."""
    is_greedy = request.temperature == 0
    penalty = request.repetition_penalty
    return {
        "details": True,
        "max_new_tokens": request.max_tokens,
        "do_sample": not is_greedy,
        "temperature": None if is_greedy else request.temperature,
        "top_p": _top_p(request, "tgi"),
        "repetition_penalty": None if penalty == 1.0 else penalty,
        "seed": None if request.seed is None else request.seed + 1,  # it takes no seed 0
        "stop": list(request.stop) or None,
        "grammar": _tgi_grammar(request),
        "return_full_text": False,
    }


def scoring_fields(token_ids: Sequence[int], model: str) -> dict[str, Any]:
    """Return the body of POST /v1/completions that weighs a prompt and generates nothing."""
    return {
        "model": model,
        "prompt": list(token_ids),
        "max_tokens": 0,
        "temperature": 0.0,
        "echo": True,
        "logprobs": 0,
    }


def read_chat(data: Any, request: ChatRequest, endpoint: Endpoint) -> ChatAnswer:
    """Read the body of an answer to `chat_fields`."""
    choice = _first(_mapping(data).get("choices"))
    usage = _mapping(_mapping(data).get("usage"))
    text = _mapping(choice.get("message")).get("content")
    content = _mapping(choice.get("logprobs")).get("content")
    pairs = [(_mapping(each).get("token"), _mapping(each).get("logprob")) for each in content or ()]
    return _answer(request, endpoint, text, choice.get("finish_reason"), usage, pairs)


def read_completion(data: Any, request: ChatRequest, endpoint: Endpoint) -> ChatAnswer:
    """Read the body of an answer to `completion_fields`."""
    choice = _first(_mapping(data).get("choices"))
    logprobs = _mapping(choice.get("logprobs"))
    pairs = list(zip(logprobs.get("tokens", ()), logprobs.get("token_logprobs", ()), strict=False))
    usage = _mapping(_mapping(data).get("usage"))
    return _answer(request, endpoint, choice.get("text"), choice.get("finish_reason"), usage, pairs)


def read_generated(output: Any, request: ChatRequest, endpoint: Endpoint) -> ChatAnswer:
    """Read the hub's TextGenerationOutput: TGI's own answer, which tells no prompt length."""
    details = _mapping(getattr(output, "details", None))
    usage = {"completion_tokens": details.get("generated_tokens", 0)}
    pairs = [(each.get("text"), each.get("logprob")) for each in details.get("tokens") or ()]
    text = getattr(output, "generated_text", None)
    return _answer(request, endpoint, text, details.get("finish_reason"), usage, pairs)


def read_scores(data: Any, count: int) -> list[float | None]:
    """Read the log-probability of each of `count` prompt tokens; the first has none."""
    logprobs = _mapping(_first(_mapping(data).get("choices")).get("logprobs"))
    values = list(logprobs.get("token_logprobs") or ())[:count]
    if len(values) < count or not all(_is_number(value) for value in values[1:]):
        raise CallError("broken", f"the server weighed {len(values)} of {count} tokens")
    return [None, *(float(value) for value in values[1:])]


def _extras(request: ChatRequest, name: EngineName) -> dict[str, Any]:
    """Return fields that OpenAI's API has not, only those that this engine knows."""
    extras: dict[str, Any] = {}
    # Said even when off: an engine may have another default from the model's generation config.
    # TGI's chat route has no such field.
    if name != "tgi" and "repetition_penalty" in engine(name).capabilities:
        extras["repetition_penalty"] = request.repetition_penalty
    if request.grammar is None:
        return extras
    schema, regex = request.grammar.json_schema, request.grammar.regex
    if name == "tgi":
        extras["response_format"] = _tgi_grammar(request)
    elif name == "vllm":
        extras["structured_outputs"] = {"json": schema} if schema is not None else {"regex": regex}
    elif regex is not None:
        extras["regex"] = regex
    else:
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        extras["response_format"] = form
    return extras


def _tgi_grammar(request: ChatRequest) -> dict[str, Any] | None:
    if request.grammar is None:
        return None
    if request.grammar.regex is not None:
        return {"type": "regex", "value": request.grammar.regex}
    return {"type": "json", "value": request.grammar.json_schema}


def _top_p(request: ChatRequest, name: EngineName) -> float | None:
    """Say 1.0 (off) too, since a server's default may differ; only TGI refuses it."""
    return None if name == "tgi" and request.top_p == 1.0 else request.top_p


def _answer(
    request: ChatRequest,
    endpoint: Endpoint,
    text: Any,
    finish: Any,
    usage: Mapping[str, Any],
    pairs: Sequence[tuple[Any, Any]],
) -> ChatAnswer:
    reason = _FINISH.get(finish)
    if reason is None:  # e.g. 'abort' of a server that ends, or none at all
        raise CallError("broken", f"the server ended the answer with {finish!r}")
    if not isinstance(text, str):
        if text is not None or reason == "stop":
            raise CallError("broken", f"the server's answer has no text (it says {finish!r})")
        text = ""  # cut off or filtered before the first word
    if request.logprobs and not all(_is_number(value) for _, value in pairs):
        raise CallError("broken", "the server's answer has tokens without log-probability")
    if request.logprobs and text and not pairs:
        raise CallError("broken", "the server's answer has no log-probabilities")
    return ChatAnswer(
        text=_without_stop(text, request) if endpoint.engine == "tgi" else text,
        finish_reason=reason,
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        endpoint=endpoint.url,
        logprobs=tuple(TokenLogprob(str(token), float(value)) for token, value in pairs)
        if request.logprobs
        else None,
    )


def _without_stop(text: str, request: ChatRequest) -> str:
    """TGI leaves the text that ended the answer at its end; the others take it off."""
    for stop in request.stop:
        if text.endswith(stop):
            return text.removesuffix(stop)
    return text


def _first(choices: Any) -> Mapping[str, Any]:
    if not isinstance(choices, list) or not choices:
        raise CallError("broken", "the server's answer has no choices")
    return _mapping(choices[0])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
