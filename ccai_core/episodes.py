"""The episode: one response to a prompt, then a critique and a revision under each principle.

The conversation is laid out so that everything shared comes first (system, few-shot turns, prompt,
response) and the principle's words last: that is what lets an engine reuse its prefix cache. After
Bai et al. 2022 (arXiv 2212.08073), section 3.1, with chat turns instead of one text.

    episode = await run_episode(engine, prompt, constitution.principles, GenerationConfig())
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import FewShot, Principle
from ccai_core.types import (
    Call,
    Completion,
    Generate,
    Message,
    Prompt,
    Sampling,
    assistant,
    fingerprint,
    system,
    user,
)


class GenerationConfig(Config):
    """How responses, critiques and revisions are written."""

    system: str = Field(
        "You are a helpful assistant. Answer the person directly, in two or three plain sentences, "
        "without lists or headings.",
        description="System turn of every call.",
    )
    temperature: float = Field(0.4, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus sampling mass.")
    repetition_penalty: float = Field(1.1, ge=1, le=2, description="1 is off.")
    response_tokens: int = Field(140, ge=8, le=8192, description="Most tokens of a response.")
    critique_tokens: int = Field(110, ge=8, le=8192, description="Most tokens of a critique.")
    revision_tokens: int = Field(160, ge=8, le=8192, description="Most tokens of a revision.")
    few_shot: int = Field(
        0, ge=0, le=8, description="Worked examples of the constitution shown before each episode."
    )
    batch_size: int = Field(
        32,
        ge=1,
        le=1024,
        description="Sequences a local engine runs together; a fleet's servers have their own.",
    )

    def sampling(self, tokens: int, seed: int) -> Sampling:
        """Return the sampling of one stage."""
        return Sampling(
            max_new_tokens=tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            seed=seed,
        )


class Step(Config):
    """What one principle made of the response; no revision where the critique was unusable."""

    principle: str = Field(description="Principle id.")
    critique: Completion = Field(description="What is wrong with the response.")
    revision: Completion | None = Field(description="The better answer.")
    critique_key: str = Field("", description="Key of the critique's call, as in the journal.")
    revision_key: str = Field("", description="Key of the revision's call.")


class Episode(Config):
    """All completions that belong to one prompt (and one pass over the prompts)."""

    prompt: Prompt = Field(description="The prompt.")
    sample: int = Field(0, ge=0, description="Which pass over the prompts; part of the seed.")
    response: Completion = Field(description="The model's own first answer.")
    steps: tuple[Step, ...] = Field(description="One a principle; empty for an unusable response.")
    key: str = Field("", description="Key of the response's call, as in the journal.")

    @property
    def calls(self) -> int:
        """How many completions it holds."""
        return 1 + sum(1 + (step.revision is not None) for step in self.steps)

    @property
    def tokens(self) -> int:
        """Tokens generated for it."""
        parts = [
            self.response,
            *(s.critique for s in self.steps),
            *(s.revision for s in self.steps),
        ]
        return sum(part.completion_tokens for part in parts if part)


def opening(prompt: Prompt, config: GenerationConfig, shots: Sequence[FewShot]) -> list[Message]:
    """Return what every call of an episode begins with."""
    turns = [system(config.system)]
    for shot in shots:
        turns += [user(shot.prompt), assistant(shot.response)]
        turns += [user(_CRITIQUE_CUE), assistant(shot.critique)]
        turns += [user(_REVISION_CUE), assistant(shot.revision)]
    return [*turns, *prompt.turns]


_CRITIQUE_CUE = "Name what most needs to change in that answer."
_REVISION_CUE = "Now write the better answer to my question. Write only the new answer."


async def run_episode(
    engine: Generate,
    prompt: Prompt,
    principles: Sequence[Principle],
    config: GenerationConfig,
    *,
    sample: int = 0,
    shots: Sequence[FewShot] = (),
) -> Episode:
    """Run one prompt through response, critiques and revisions; principles go side by side."""
    identity = fingerprint([prompt.id, sample], 8)
    seed = int(identity, 16)
    turns = opening(prompt, config, shots)
    lengths = {config.response_tokens, config.critique_tokens, config.revision_tokens}
    samplings = {tokens: config.sampling(tokens, seed) for tokens in lengths}

    async def complete(turns: list[Message], tokens: int) -> tuple[Completion, str]:
        call = Call(messages=tuple(turns), sampling=samplings[tokens], episode=identity)
        return await engine.generate(call), call.key(engine.model)

    response, key = await complete(turns, config.response_tokens)
    steps: list[Step] = []
    if response.usable:
        turns = [*turns, assistant(response.text)]
        asked = [_step(complete, turns, prompt, p, config) for p in principles]
        steps = await asyncio.gather(*asked)
    return Episode(prompt=prompt, sample=sample, response=response, steps=tuple(steps), key=key)


def revise(principle: Principle, prompt: Prompt) -> str:
    """Return the request for a revision; it repeats the question, or small models lose it."""
    return f"{principle.revision}\n\nMy question was: {prompt.text}"


Complete = Callable[[list[Message], int], Awaitable[tuple[Completion, str]]]
"""Answers turns with so many tokens at most; returns the completion and its call's key."""


async def _step(
    complete: Complete,
    turns: list[Message],
    prompt: Prompt,
    principle: Principle,
    config: GenerationConfig,
) -> Step:
    turns = [*turns, user(principle.critique)]
    critique, key = await complete(turns, config.critique_tokens)
    step = Step(principle=principle.id, critique=critique, revision=None, critique_key=key)
    if not critique.usable:
        return step
    turns = [*turns, assistant(critique.text), user(revise(principle, prompt))]
    revision, key = await complete(turns, config.revision_tokens)
    return step.model_copy(update={"revision": revision, "revision_key": key})
