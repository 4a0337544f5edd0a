"""Text Generation Inference: archived upstream in 2026, still a full member here.

TGI().command(spec, port)
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from ccai_core.errors import ConfigError
from infra.cluster import EngineName
from infra.engines.base import Capability, Engine, ServeSpec
from infra.ports import free_port


class TGI(Engine):
    """`text-generation-launcher`: its own API (/generate) and, from version 1.4, OpenAI's chat.

    The chat takes no `repetition_penalty` (and says nothing when sent one); /generate does.
    Prefix caching is on by itself where model and GPU can do it.
    """

    name: ClassVar[EngineName] = "tgi"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"seed", "stop", "logprobs", "grammar"}
    )
    key_variable: ClassVar[str] = "API_KEY"
    listing: ClassVar[str] = "/info"

    def arguments(self, spec: ServeSpec, port: int) -> list[str]:
        """Return the launcher's command line.

        Raises:
            ConfigError: float32, which TGI does not serve.
        """
        if spec.dtype == "float32":
            raise ConfigError("TGI serves float16 or bfloat16, not float32: set dtype to auto.")
        words = [spec.executable or "text-generation-launcher", f"--model-id={spec.model}"]
        words += ["--hostname=127.0.0.1", f"--port={port}", f"--num-shard={max(1, spec.gpus)}"]
        words.append(f"--max-concurrent-requests={spec.max_parallel}")
        # Two instances on one machine must not meet in the launcher's fixed names and ports.
        words.append(f"--shard-uds-path=/tmp/tgi-{os.getuid()}-{port}")
        if spec.revision is not None:
            words.append(f"--revision={spec.revision}")
        if spec.dtype != "auto":
            words.append(f"--dtype={spec.dtype}")
        if spec.max_length is not None:
            words.append(f"--max-total-tokens={spec.max_length}")
            words.append(f"--max-input-tokens={spec.max_length - 1}")
        return [*words, *spec.options]

    def settings(self, spec: ServeSpec) -> dict[str, str]:
        """Send no usage statistics; have no fixed port, for the next instance on this machine."""
        ports = {"MASTER_PORT": str(free_port()), "PROMETHEUS_PORT": str(free_port())}
        return {"USAGE_STATS": "off", **ports}

    def model_name(self, spec: ServeSpec) -> str:
        """TGI knows the model by where it was loaded from, whatever a request calls it."""
        return spec.model

    def listed(self, answer: Any) -> set[str]:
        """Return the one model that /info names."""
        return {str(answer["model_id"])}

    def trial(self, spec: ServeSpec) -> tuple[str, dict[str, Any]]:
        """Ask by /generate: every version has it, and models without a chat template as well."""
        return "/generate", {"inputs": "Hi", "parameters": {"max_new_tokens": 1}}

    def completed(self, answer: Any) -> bool:
        """Tell whether the answer to `trial` is a completion."""
        return isinstance(answer["generated_text"], str)
