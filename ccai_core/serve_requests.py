"""What clients may ask of the server, in OpenAI's words, and what they are told if they may not.

Fields that OpenAI does not know are ignored, as OpenAI does. Fields that would change the answer,
and that this server does not have, are refused: an answer drawn otherwise than asked is worse.

    ask = parse(ChatRequest, body)
    sampling = ask.sampling(limit=256)
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from ccai_core.types import Message, Sampling

_MOST_TOKENS = 32_768
# Known fields that are not supported, and the values with which they ask for nothing.
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "top_k": (-1, 0),
    "min_p": (0,),
    "grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "modalities": (["text"],),
}


class ApiError(Exception):
    """A request that is not answered, in the form in which OpenAI says so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Stream(BaseModel):
    include_usage: bool = False


class _Ask(BaseModel):
    """What a chat and a plain completion have in common."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    model: str = ""
    max_tokens: int | None = Field(None, ge=0, le=_MOST_TOKENS)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=1, le=2)
    seed: int = Field(default_factory=lambda: secrets.randbelow(2**31), ge=0, lt=2**63)
    stop: tuple[str, ...] = Field((), max_length=16)
    stream: bool = False
    stream_options: _Stream = _Stream()

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("a stop text must not be empty")
        return value

    def sampling(self, most: int) -> Sampling:
        """Return how to draw at most so many tokens."""
        return Sampling(
            max_new_tokens=most,
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )


class _Turn(Message):
    """A message as clients send it: more fields, parts of text, and the role 'developer'."""

    model_config = ConfigDict(extra="ignore")

    @field_validator("role", mode="before")
    @classmethod
    def _developers_are_the_system(cls, value: object) -> object:
        return "system" if value == "developer" else value

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        if not all(isinstance(p, dict) and p.get("type") == "text" for p in value):
            raise ValueError("only parts of type 'text' are supported")
        if not all(isinstance(p.get("text"), str) for p in value):
            raise ValueError("a part of type 'text' must have a text")
        return "".join(p["text"] for p in value)


class ChatRequest(_Ask):
    """POST /v1/chat/completions."""

    messages: tuple[_Turn, ...] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=_MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=_MOST_TOKENS)
    logprobs: Literal[False] = False

    @property
    def most(self) -> int | None:
        """The most tokens to write, if the client has said it."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Ask):
    """POST /v1/completions: texts or token ids, continued or scored."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(16, ge=0, le=_MOST_TOKENS)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=1)

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt: a text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [each for each in self.prompt if isinstance(each, int)]
        return [ids] if ids else [each for each in self.prompt if not isinstance(each, int)]


R = TypeVar("R", bound=_Ask)


def parse(kind: type[R], body: bytes) -> R:
    """Read the body of a request.

    Raises:
        ApiError: 400, it is not JSON, or a field has a value that is not supported.
    """
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ApiError(400, "The body must be a JSON object.")
    # A null asks for nothing; clients send it for whatever they do not set.
    values = {name: value for name, value in values.items() if value is not None}
    for name, idle in _REFUSED.items():
        if name in values and values[name] not in idle:
            raise ApiError(400, f"{name}: this value is not supported by this server.", param=name)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        if where == "logprobs":
            raise ApiError(400, _LOGPROBS, param=where) from None
        raise ApiError(400, f"{where}: {problem['msg']}.", param=where) from None


_LOGPROBS = (
    "logprobs: log-probabilities of generated tokens are not supported. Those of a prompt are: "
    "POST /v1/completions with echo true, max_tokens 0 or 1 and logprobs 0 or 1."
)


def check_scoring(ask: CompletionRequest) -> bool:
    """Return whether a completion asks for the scores of its prompt.

    Raises:
        ApiError: 400, it asks for what is neither a text nor the scores of a prompt.
    """
    if ask.logprobs is not None:
        if not ask.echo or ask.max_tokens > 1:
            raise ApiError(400, _LOGPROBS, param="logprobs")
        if ask.stream:
            raise ApiError(400, "stream: scores are not streamed.", param="stream")
        return True
    if ask.max_tokens == 0:
        raise ApiError(
            400, "max_tokens: 0 is for scoring, with echo true and logprobs.", param="max_tokens"
        )
    return False
