"""The words of the project as types: Prompt, Call, Completion, PreferencePair, and the protocols.

Everything above knows text generation only as `Generate` (and, for judges, `Choose` or `Score`);
whether that is a model in this process or a fleet on Slurm is not visible from here.

    completion = await engine.generate(Call(messages=(user("Hello"),), sampling=Sampling()))
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from ccai_core.config import Config

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
Category = Literal["hazard", "ethical_dilemma", "philosophical", "practical_advice"]
Difficulty = Literal["easy", "medium", "hard"]
FinishReason = Literal["stop", "length", "filtered", "error"]


def fingerprint(value: Any, length: int = 16) -> str:
    """Hash any JSON-like value by content: sha256 over canonical JSON, hex, cut to `length`."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:length]


# One for all: json.dumps with options makes an encoder at each call.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str
)


class Message(Config):
    """One turn of a conversation."""

    role: Role = Field(description="Who speaks.")
    content: str = Field(description="What is said, without any control token.")


def system(content: str) -> Message:
    """Return a system turn."""
    return Message(role="system", content=content)


def user(content: str) -> Message:
    """Return a user turn."""
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    """Return an assistant turn."""
    return Message(role="assistant", content=content)


class Sampling(Config):
    """How a completion is drawn. Part of a call's identity."""

    max_new_tokens: int = Field(256, ge=1, le=32_768, description="Most tokens to generate.")
    temperature: float = Field(0.7, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus sampling mass.")
    repetition_penalty: float = Field(1.0, ge=1, le=2, description="1 is off.")
    seed: int = Field(0, ge=0, description="Seed of this call.")


@lru_cache(maxsize=4096)  # The calls of an episode have two or three.
def _canonical_sampling(sampling: Sampling) -> str:
    return _CANONICAL.encode(sampling.model_dump())


class Call(Config):
    """One request for a completion."""

    messages: tuple[Message, ...] = Field(min_length=1, description="The conversation so far.")
    sampling: Sampling = Field(default=Sampling(), description="How to draw the completion.")
    episode: str = Field(
        "", description="What it belongs to: calls of one episode share a prefix, so a server."
    )

    def key(self, model: str) -> str:
        """Identity of the call's answer: model identity (name@revision), messages, sampling.

        Which episode it belongs to is no part of it: that decides where it goes, not what it says.
        """
        # The fingerprint of [model, [[role, content], ...], sampling], put together from its parts:
        # that takes half the time, and this is asked for at every call.
        turns = ",".join([f'["{m.role}",{_quoted(m.content)}]' for m in self.messages])
        text = f"[{_quoted(model)},[{turns}],{_canonical_sampling(self.sampling)}]"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Completion(Config):
    """What a model answered to one call."""

    text: str = Field(description="The generated text, special tokens removed, stripped.")
    finish_reason: FinishReason = Field(description="'length' means cut off by max_new_tokens.")
    prompt_tokens: int = Field(0, ge=0, description="Tokens read.")
    completion_tokens: int = Field(0, ge=0, description="Tokens generated.")
    model: str = Field("", description="Model identity, name@revision.")
    endpoint: str = Field("", description="Who answered: 'local:cpu' or a server's URL.")
    batch: str = Field("", description="Identity of the batch it was computed in, if any.")
    batch_size: int = Field(1, ge=1, description="Calls in that batch; a replay wants all.")

    @property
    def usable(self) -> bool:
        """Whether the model finished by itself and said something."""
        return self.finish_reason == "stop" and bool(self.text.strip())


class Prompt(Config):
    """One question put to the model, with what is known of it."""

    id: str = Field(description="Unique within a prompt set.")
    text: str = Field(description="The question: the last user turn.")
    source: str = Field(description="Where it is from, e.g. 'ailuminate-demo', 'scenarios'.")
    split: Split = Field(description="Pure function of the normalised text; test is never trained.")
    context: tuple[Message, ...] = Field((), description="Turns before it, if any.")
    category: Category | None = Field(None, description="What kind of question it is, for mixing.")
    hazard: str | None = Field(None, description="AILuminate hazard code, e.g. 'vcr'.")
    persona: str | None = Field(
        None, description="AILuminate persona: normal, skilled or unskilled."
    )
    locale: str | None = Field(None, description="Language and country, e.g. 'en_US'.")
    principle: str | None = Field(None, description="Principle id a scenario was written for.")
    difficulty: Difficulty | None = Field(None, description="How hard it is to answer well.")
    criteria: tuple[str, ...] = Field((), description="What a good answer does, for raters.")
    tags: tuple[str, ...] = Field((), description="Free labels.")
    restricted: bool = Field(
        False, description="Members-only text: artifacts hold its id and hash, not the text."
    )

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation that the model is to answer."""
        return (*self.context, user(self.text))


class PreferencePair(Config):
    """Chosen and rejected answers to one prompt, in TRL's conversational format."""

    prompt: tuple[Message, ...] = Field(description="The user turn(s).")
    chosen: tuple[Message, ...] = Field(description="The revision, one assistant turn.")
    rejected: tuple[Message, ...] = Field(description="The original response.")
    principle: str = Field(description="Principle the revision was made under.")
    prompt_id: str = Field(description="Prompt.id it came from.")
    source: str = Field(description="Prompt.source.")
    hazard: str | None = Field(None, description="Prompt.hazard.")
    critique: str = Field(description="The critique between response and revision.")
    provenance: dict[str, str] = Field(description="Call keys, model, constitution fingerprint.")


class Generate(Protocol):
    """Anything that completes calls: a local engine, a fleet, a hosted API."""

    @property
    def model(self) -> str:
        """Model identity, name@revision."""

    async def generate(self, call: Call) -> Completion:
        """Answer one call; a failure is a Completion with finish_reason 'error', never a text."""


class Choose(Protocol):
    """Anything that can weigh fixed answers by log-probability (judges, multiple choice)."""

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        """Return log p(option | conversation) for each option, summed over its tokens (nats)."""


@runtime_checkable
class Score(Choose, Protocol):
    """A `Choose` that also weighs plain texts, and says with what precision its weights compute."""

    @property
    def dtype(self) -> str:
        """Weights' dtype, e.g. 'float32': log-probabilities differ by it."""

    async def text_logprob(self, text: str) -> tuple[float, int]:
        """Return the summed log-probability (nats) of a plain text, and its predicted tokens."""


@runtime_checkable
class Gathering(Protocol):
    """An engine that waits until nothing moves before it forms a batch."""

    def stir(self) -> None:
        """Say that a caller has been answered elsewhere and may be about to ask more."""


@runtime_checkable
class Parallel(Protocol):
    """An engine of many servers that says how much more it can be asked."""

    @property
    def room(self) -> int | None:
        """Calls of new episodes that would find a place now, or soon; None: it does not know.

        A call counts from the moment when `generate` is called and runs up to its first wait.
        """
