"""A fleet of inference servers as the domain's engine: `OpenEngine` and `Engine` over `infra`.

engines = FleetEngines(cluster, fleets=workspace.fleets, jobs=workspace.jobs)
async with engines(model, precision="fp32") as engine:
    completion = await engine.generate(call)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ccai_core.chat_tokens import ChatTokens
from ccai_core.engine_status import EngineStatus
from ccai_core.engines import Engine
from ccai_core.errors import ConfigError, EngineError
from ccai_core.models import ModelRef, Precision, context_window, load_tokenizer
from ccai_core.types import Call, Completion, Message, Role, fingerprint
from infra.client import ChatMessage, ChatRequest, Client, ClientConfig
from infra.cluster import ClusterConfig, FleetDefaults
from infra.engines import ServeSpec
from infra.fleet import Fleet, FleetPlan
from infra.fleet_metrics import measure_within
from tasks.fleet_status import FleetStatus

# All instances may meet their time limit at once and queue again. Waiting for that has no limit
# here: the fleet itself gives up, and says so, when none stays up.
_PATIENT = ClientConfig(absent_seconds=math.inf)
_MESSAGES = 8192  # remembered
_DTYPES = {"auto": "auto", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class FleetEngines:
    """`OpenEngine` over fleets of the cluster: one fleet a model, up for as long as it is needed.

    Travels to a job as it is; whoever opens an engine owns the fleet.
    """

    cluster: ClusterConfig
    fleets: Path
    jobs: Path
    owner: str = ""

    @asynccontextmanager
    async def __call__(
        self, model: ModelRef, precision: Precision = "auto", batch_size: int = 32
    ) -> AsyncIterator[Engine]:
        """Start (or join) the model's fleet and ask it, until the block is left."""
        plan = fleet_plan(self.cluster, model, precision)
        tokens = await asyncio.to_thread(lambda: ChatTokens(load_tokenizer(model)))

        def render(messages: Sequence[ChatMessage]) -> str:
            return tokens.as_text([Message(role=m.role, content=m.content) for m in messages])

        fleet = Fleet(plan, self.cluster, self.fleets / plan.name, self.jobs, owner=self.owner)
        # Starting and ending submit and cancel jobs, which takes seconds.
        await asyncio.to_thread(fleet.__enter__)
        try:
            await asyncio.to_thread(fleet.wait_ready)
            async with Client(fleet.endpoints, fleet.key, _PATIENT, render) as client:
                status = FleetStatus(client, lambda: measure_within(fleet.endpoints(), fleet.key))
                yield FleetEngine(model, client, tokens, plan.serve, status)
        finally:
            # Shielded: a cancelled step must still end what it has started.
            await asyncio.shield(asyncio.to_thread(fleet.__exit__, None, None, None))


def fleet_plan(cluster: ClusterConfig, model: ModelRef, precision: Precision) -> FleetPlan:
    """Return the fleet that serves `model` on this cluster.

    Raises:
        ConfigError: the profile has no fleet.
    """
    defaults = cluster.fleet
    if defaults is None:
        raise ConfigError(f"Cluster {cluster.name}: has no `fleet` section.")
    resources = cluster.for_role("fleet")
    return FleetPlan(
        name=f"{defaults.engine}-{fingerprint([model.identity, precision], 10)}",
        serve=_serve_spec(cluster, defaults, model, precision),
        instances=defaults.instances,
        min_instances=min(defaults.min_instances, defaults.instances),
        cpus=None if defaults.gpus else resources.cpus,
        memory_gb=None if defaults.gpus else resources.memory_gb,
        minutes=resources.minutes,
        ready_minutes=defaults.ready_minutes,
    )


def _serve_spec(
    cluster: ClusterConfig, defaults: FleetDefaults, model: ModelRef, precision: Precision
) -> ServeSpec:
    return ServeSpec(
        engine=defaults.engine,
        model=str(model.path),
        # With its revision: an instance that serves other weights is never taken for ready.
        served_name=model.identity,
        dtype=_DTYPES[precision],
        device=cluster.device,
        gpus=defaults.gpus,
        # With GPUs the CPUs come with them: `cpus` is for jobs that have none.
        cpus=None if defaults.gpus else cluster.for_role("fleet").cpus,
        max_length=defaults.max_length,
        max_parallel=defaults.max_parallel,
        executable=defaults.executable,
        options=defaults.options,
        container=cluster.container,
    )


class FleetEngine:
    """`Engine` over the endpoints of a fleet that serves one model."""

    def __init__(
        self,
        model: ModelRef,
        client: Client,
        tokens: ChatTokens,
        spec: ServeSpec,
        status: FleetStatus | None = None,
    ) -> None:
        self._model, self._client, self._tokens, self._spec = model, client, tokens, spec
        self._status = status or FleetStatus(client, None)
        # An episode says the same again with each call, and all of them the same system prompt.
        self._message = lru_cache(maxsize=_MESSAGES)(self._inert)
        self._limit = min(context_window(model), spec.max_length or context_window(model))

    @property
    def model(self) -> str:
        """Model identity, name@revision."""
        return self._model.identity

    @property
    def dtype(self) -> str:
        """Weights' dtype as the servers were told it."""
        return self._spec.dtype

    @property
    def room(self) -> int | None:
        """Calls of new episodes that the fleet's servers have room for."""
        return self._client.room

    async def status(self) -> EngineStatus:
        """Return how the fleet's servers are."""
        return await self._status.look()

    async def generate(self, call: Call) -> Completion:
        """Answer one call; what no server could answer is an 'error' completion."""
        sampling = call.sampling
        request = ChatRequest(
            # The servers apply the chat template: no text may spell one of its tokens.
            messages=tuple(
                self._message(m.role, m.content) for m in self._tokens.placed(call.messages)
            ),
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            seed=sampling.seed,
        )
        answer = await self._client.chat(request, affinity=call.episode)
        return Completion(
            text=answer.text.strip(),
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            model=self.model,
            endpoint=answer.endpoint,
        )

    def _inert(self, role: Role, content: str) -> ChatMessage:
        (inert,) = self._tokens.inert([Message(role=role, content=content)])
        return ChatMessage(role=inert.role, content=inert.content)

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        """Return log p(option | conversation), summed over each option's tokens (nats).

        Raises:
            EngineError: there is no option or an empty one, it is too long, or the servers give
                no log-probabilities.
        """
        prompt = self._tokens.of_chat(messages)
        answers = [self._tokens.of_text(option) for option in options]
        if not answers or not all(answers):
            raise EngineError(f"Options to choose from must be texts, not empty: {options!r:.200}.")
        affinity = fingerprint(prompt, 8)
        return await asyncio.gather(*(self._ending(prompt, each, affinity) for each in answers))

    async def text_logprob(self, text: str) -> tuple[float, int]:
        """Return the summed log-probability (nats) of a plain text, and its predicted tokens.

        The first token is not predicted, and a text is read up to the context window's end.
        """
        ids = self._tokens.of_text(text)[: self._limit - 1]
        if len(ids) < 2:
            return 0.0, 0
        return await self._ending(ids[:1], ids[1:], fingerprint(ids, 8)), len(ids) - 1

    async def _ending(self, prompt: Sequence[int], ending: Sequence[int], affinity: str) -> float:
        # One token of the window is for the token that some servers must generate.
        if len(prompt) + len(ending) >= self._limit:
            raise EngineError(
                f"{len(prompt) + len(ending)} tokens to weigh exceed the context window of "
                f"{self._limit} tokens. Shorten them, or take a model with a larger one."
            )
        values = await self._client.prompt_logprobs([*prompt, *ending], affinity=affinity)
        known = [value for value in values[-len(ending) :] if value is not None]
        if len(known) != len(ending):
            raise EngineError(f"A server left out log-probabilities of {self._model.name}.")
        return sum(known)
