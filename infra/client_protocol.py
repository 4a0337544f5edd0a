"""What a call to a fleet asks and gets, whatever engine answers it.

request = ChatRequest(messages=(ChatMessage(role="user", content="Hello"),), max_tokens=64)
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ccai_core.config import Config
from infra.engines import Capability

FinishReason = Literal["stop", "length", "filtered", "error"]
"""`length`: cut off by max_tokens; `filtered`: the server withheld (part of) it."""


class ChatMessage(Config):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks.")
    content: str = Field(description="What is said.")


class Grammar(Config):
    """What form an answer must have."""

    json_schema: dict[str, Any] | None = Field(None, description="A JSON Schema it conforms to.")
    regex: str | None = Field(None, description="A regular expression that it matches.")

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if (self.json_schema is None) == (self.regex is None):
            raise ValueError("give json_schema or regex, one of them")
        return self


class ChatRequest(Config):
    """One call: a conversation to go on with, or a raw prompt, and how to draw the answer."""

    messages: tuple[ChatMessage, ...] = Field((), description="The conversation so far.")
    prompt: str = Field("", description="Instead of messages: text that no template is put on.")
    max_tokens: int = Field(256, ge=1, description="Most tokens to generate.")
    temperature: float = Field(0.7, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling mass.")
    repetition_penalty: float = Field(1.0, gt=0, le=2, description="1 is off.")
    seed: int | None = Field(None, ge=0, description="Seed of this call.")
    stop: tuple[str, ...] = Field((), max_length=4, description="Texts that end the answer.")
    logprobs: bool = Field(False, description="Tell each generated token's log-probability.")
    grammar: Grammar | None = Field(None, description="What form the answer must have.")

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Self:
        if bool(self.messages) == bool(self.prompt):
            raise ValueError("give messages or a prompt, one of them")
        return self

    @property
    def needs(self) -> frozenset[Capability]:
        """What an engine must be able to do to answer this as it is asked."""
        wanted: dict[Capability, bool] = {
            "seed": self.seed is not None,
            "stop": bool(self.stop),
            "logprobs": self.logprobs,
            "grammar": self.grammar is not None,
            "repetition_penalty": self.repetition_penalty != 1.0,
        }
        return frozenset(each for each, is_wanted in wanted.items() if is_wanted)


class TokenLogprob(NamedTuple):
    """A generated token and the natural logarithm of its probability."""

    token: str
    logprob: float


class ChatAnswer(Config):
    """What came of a call; a failure is an answer with finish_reason 'error', never a text."""

    text: str = Field(description="The generated text, as the server gave it.")
    finish_reason: FinishReason = Field(description="Why it ended there.")
    prompt_tokens: int = Field(0, ge=0, description="Tokens read; 0 where the server says nothing.")
    completion_tokens: int = Field(0, ge=0, description="Tokens generated.")
    endpoint: str = Field("", description="URL of the server that answered; empty: none did.")
    logprobs: tuple[TokenLogprob, ...] | None = Field(
        None, description="Of each generated token, where asked for."
    )
    attempts: int = Field(1, ge=1, description="Times it was sent, this answer's included.")
    reason: str = Field("", description="Why there is no text, after finish_reason 'error'.")


FailureKind = Literal[
    "caller", "key", "busy", "overloaded", "timeout", "unavailable", "broken", "left"
]
"""`caller` and `key` fail everywhere; the others may succeed on another endpoint. `busy` (429) is
an endpoint that is well; `left`: it left the fleet under the call, which counts as no attempt."""


class CallError(Exception):
    """One attempt on one endpoint failed. Stays within the client."""

    def __init__(self, kind: FailureKind, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.retry_after = retry_after
