"""`/generate` for engines that have none: TGI's, and that of vLLM's old demo server.

Scripts written for llm-swarm ask in these two ways. A setting that cannot be passed on is refused,
never dropped: a text drawn otherwise than asked is worse than none.

    asked = read_generate(body, "/", endpoint)
    ... POST /v1/completions with asked.body ...
    asked.reply(answer)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ccai_core.config import explain
from infra.client_protocol import ChatRequest, Grammar
from infra.client_wire import completion_fields, read_completion
from infra.endpoint import Endpoint
from infra.engines import engine

_TGI_DEFAULT_TOKENS = 100
_VLLM_DEFAULT_TOKENS = 16
_WITH_TOP_K = frozenset({"vllm", "sglang", "llamacpp"})
_TGI_KNOWS = frozenset(
    "do_sample grammar max_new_tokens repetition_penalty return_full_text seed stop "
    "stop_sequences temperature top_k top_p".split()
)
_VLLM_KNOWS = frozenset(
    "max_tokens prompt repetition_penalty seed stop temperature top_k top_p".split()
)
# With these values a setting asks for nothing.
_NOTHING: tuple[Any, ...] = (None, False)


class RefusedError(Exception):
    """A request that cannot be answered as it is asked."""


@dataclass(frozen=True)
class Generate:
    """One call to `/generate`, and what is asked of the engine in its place."""

    request: ChatRequest
    endpoint: Endpoint
    body: bytes
    before: str
    """What stands before the generated text in the answer: nothing, or the prompt."""
    form: str
    """tgi-list (TGI's POST /), tgi (TGI's /generate), or vllm."""

    def reply(self, answer: Any) -> Any:
        """Return the body that answers the caller.

        Raises:
            CallError: the engine's answer is not what was asked for.
        """
        text = self.before + read_completion(answer, self.request, self.endpoint).text
        if self.form == "vllm":
            return {"text": [text]}
        one = {"generated_text": text}
        return [one] if self.form == "tgi-list" else one


def read_generate(body: bytes, path: str, endpoint: Endpoint) -> Generate | None:
    """Read a request; None: it is neither TGI's nor that of vLLM's demo server.

    Raises:
        RefusedError: it asks for what the engine has not.
    """
    try:
        said = json.loads(body)
    except ValueError:
        return None
    if not isinstance(said, dict) or not {"inputs", "prompt"} & set(said):
        return None
    try:
        if "inputs" in said:
            return _tgi(said, "tgi-list" if path == "/" else "tgi", endpoint)
        return _vllm(said, endpoint)
    except ValidationError as error:
        raise RefusedError(explain(error, ChatRequest, "/generate")) from None


def _tgi(said: Mapping[str, Any], form: str, endpoint: Endpoint) -> Generate:
    _refuse_others(said, frozenset({"inputs", "parameters"}), endpoint)
    asked = said.get("parameters") or {}
    if not isinstance(asked, Mapping):
        raise RefusedError("parameters: must be an object.")
    _refuse_others(asked, _TGI_KNOWS, endpoint)
    heat, top_p, top_k = (asked.get(each) for each in ("temperature", "top_p", "top_k"))
    # TGI's own rule: a temperature of 1 by itself draws nothing.
    draws = asked.get("do_sample") or heat not in (None, 1.0) or top_p is not None or top_k
    request = {
        "prompt": said["inputs"],
        "max_tokens": _or(asked.get("max_new_tokens"), _TGI_DEFAULT_TOKENS),
        "temperature": _or(heat, 1.0) if draws else 0.0,
        "top_p": _or(top_p, 1.0),
        "repetition_penalty": _or(asked.get("repetition_penalty"), 1.0),
        "seed": asked.get("seed"),
        "stop": asked.get("stop") or asked.get("stop_sequences") or (),
        "grammar": _grammar(asked.get("grammar")),
    }
    before = str(said["inputs"]) if asked.get("return_full_text") else ""
    return _made(request, top_k, before, form, endpoint)


def _vllm(said: Mapping[str, Any], endpoint: Endpoint) -> Generate:
    others = {name: value for name, value in said.items() if (name, value) != ("n", 1)}
    _refuse_others(others, _VLLM_KNOWS, endpoint)
    stop, top_k = said.get("stop"), said.get("top_k")
    request = {
        "prompt": said["prompt"],
        "max_tokens": _or(said.get("max_tokens"), _VLLM_DEFAULT_TOKENS),
        "temperature": _or(said.get("temperature"), 1.0),
        "top_p": _or(said.get("top_p"), 1.0),
        "repetition_penalty": _or(said.get("repetition_penalty"), 1.0),
        "seed": said.get("seed"),
        "stop": [stop] if isinstance(stop, str) else stop or (),
    }
    return _made(request, None if top_k == -1 else top_k, str(said["prompt"]), "vllm", endpoint)


def _made(
    said: Mapping[str, Any], top_k: Any, before: str, form: str, endpoint: Endpoint
) -> Generate:
    request = ChatRequest.model_validate(said)
    capable = engine(endpoint.engine).capabilities
    lacking: list[str] = sorted(request.needs - capable)
    if top_k and endpoint.engine not in _WITH_TOP_K:
        lacking.append("top_k")
    if lacking:
        raise RefusedError(f"The engine {endpoint.engine} has no {', '.join(lacking)}.")
    fields = completion_fields(request, endpoint)
    if top_k:
        fields["top_k"] = top_k
    return Generate(request, endpoint, json.dumps(fields).encode(), before, form)


def _refuse_others(said: Mapping[str, Any], known: frozenset[str], endpoint: Endpoint) -> None:
    wrong = sorted(name for name in set(said) - known if said[name] not in _NOTHING)
    if wrong:
        raise RefusedError(
            f"{', '.join(wrong)}: not to be had at /generate of the engine {endpoint.engine}. "
            "Leave it out, use the engine tgi, or ask /v1/completions."
        )


def _grammar(said: Any) -> Grammar | None:
    if said is None:
        return None
    kinds = {"regex": "regex", "json": "json_schema"}
    if not isinstance(said, Mapping) or said.get("type") not in kinds:
        raise RefusedError("grammar: its type must be regex or json.")
    return Grammar.model_validate({kinds[said["type"]]: said.get("value")})


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
