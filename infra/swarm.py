"""llm-swarm's `LLMSwarm` on our fleets: a script written for it works by changing one import.

from infra.swarm import FleetConfig as LLMSwarmConfig, Swarm as LLMSwarm

with LLMSwarm(LLMSwarmConfig(instances=2, model="some/model")) as llm_swarm:
    client = AsyncInferenceClient(model=llm_swarm.endpoint)
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import cached_property
from types import FrameType, TracebackType
from typing import Any

from llm_swarm import LLMSwarm, LLMSwarmConfig  # type: ignore[import-untyped]

from ccai_core.errors import FleetError
from infra.fleet import Fleet
from infra.swarm_config import FleetConfig, extended, set_up
from infra.swarm_gateway import Gateway

__all__ = ["FleetConfig", "Swarm"]

_HOSTED = "https://api-inference.huggingface.co/"
_HOSTED_PARALLEL = 40


class Swarm(LLMSwarm):  # type: ignore[misc]  # llm-swarm has no types
    """Inference instances that are there inside the `with` block, behind one URL.

    Of llm-swarm it has the interface and no line of the code that starts and ends instances.
    """

    endpoint: str
    """The URL to ask, which is a secret: whoever has it may ask. As with llm-swarm it ends in
    `/generate` for vllm. Set by `start`; the same however often instances come and go."""
    suggested_max_parallel_requests: int
    """Requests to send at once; beyond what ready instances take they wait. Set by `start`."""

    def __init__(self, config: LLMSwarmConfig) -> None:
        """Check the configuration; nothing is started.

        Raises:
            ConfigError: says which value is wrong.
        """
        # Not llm-swarm's own, which loads the tokenizer and makes folders.
        self.config = config
        self.cleaned_up = False
        self._asked = extended(config)
        self._held = ExitStack()
        self._fleet: Fleet | None = None
        self._setup = None
        if not config.debug_endpoint:
            self._setup = set_up(self._asked, lambda: int(self.tokenizer.model_max_length))

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, loaded when it is first asked for."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._asked.model, revision=self._asked.revision)

    def start(self) -> None:
        """Start the instances and return once the first is ready; others join meanwhile.

        Whatever interrupts this ends all that was started, and goes on up.

        Raises:
            CCAIError: no instance will come; says why.
        """
        asked = self._asked
        self.suggested_max_parallel_requests = (
            asked.per_instance_max_parallel_requests * asked.instances
        )
        if self._setup is None:
            self._use(str(asked.debug_endpoint))
            if str(asked.debug_endpoint).startswith(_HOSTED):
                self.suggested_max_parallel_requests = _HOSTED_PARALLEL
            return
        plan, cluster = self._setup.plan, self._setup.cluster
        count, where = plan.instances, cluster.name
        _say(f"Fleet {plan.name} on {where!r}: waiting for the first of {count} instances.")
        with ExitStack() as held:
            fleet = Fleet(plan, cluster, self._setup.folder, self._setup.jobs)
            held.enter_context(fleet)
            fleet.wait_ready()
            gateway = Gateway(fleet.endpoints, fleet.key, translates=plan.serve.engine != "tgi")
            held.enter_context(gateway)
            fleet.files.write_router(gateway.url)
            self._fleet, self._held, self.cleaned_up = fleet, held.pop_all(), False
        self._use(gateway.open_url)
        _say(f"Fleet {plan.name} answers.")

    def cleanup(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """End the instances; harmless before `start` and when called again."""
        if not self.config.debug_endpoint:
            self._held.close()
            self.cleaned_up = True

    def __enter__(self) -> Swarm:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the instances."""
        self.cleanup()

    @property
    def fleet(self) -> Fleet:
        """The fleet behind it: states, `scale`, and with `infra.client` a better client.

        Raises:
            FleetError: it was not started.
        """
        if self._fleet is None:
            raise FleetError("The swarm has no instances: it was not started.")
        return self._fleet

    @property
    def endpoints(self) -> list[str]:
        """URLs of the instances that are ready now. Unlike `endpoint` they want the key."""
        return [each.url for each in self.fleet.endpoints()]

    @property
    def key(self) -> str:
        """What `endpoints` want as a bearer token."""
        return self.fleet.key

    @property
    def job_ids(self) -> list[str]:
        """Ids of the instances' jobs, those that wait in the queue included."""
        return [each.job_id for each in self.fleet.states() if each.job_id]

    def _use(self, url: str) -> None:
        self.endpoint = f"{url}/generate" if self._asked.inference_engine == "vllm" else url


def _say(text: str) -> None:
    # Scripts set up no logging, and a queue can be long.
    sys.stderr.write(f"{text}\n")
