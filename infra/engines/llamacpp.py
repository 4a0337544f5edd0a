"""llama.cpp's `llama-server`, for GGUF files.

LlamaCpp().command(spec, port)
"""

from __future__ import annotations

from typing import ClassVar

from ccai_core.errors import ConfigError
from infra.cluster import EngineName
from infra.engines.base import Capability, Engine, ServeSpec


class LlamaCpp(Engine):
    """An OpenAI-compatible server.

    Its penalty is called `repeat_penalty` and weighs otherwise, so `repetition_penalty` is not
    among its capabilities; it gives no log-probabilities of a prompt's tokens.
    """

    name: ClassVar[EngineName] = "llamacpp"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"seed", "stop", "logprobs", "grammar"}
    )
    key_variable: ClassVar[str] = "LLAMA_API_KEY"

    def arguments(self, spec: ServeSpec, port: int) -> list[str]:
        """Return the server's command line. Its options take no `=`.

        Raises:
            ConfigError: a precision or revision, which a GGUF file has of its own.
        """
        if spec.dtype != "auto" or spec.revision is not None:
            raise ConfigError(
                "llama.cpp takes precision and revision from the GGUF file: leave dtype at auto "
                "and revision unset, and name the file as the model."
            )
        source = "--model" if spec.model.endswith(".gguf") else "--hf-repo"
        words = [spec.executable or "llama-server", source, spec.model]
        words += ["--alias", spec.served_name, "--host", "127.0.0.1", "--port", str(port)]
        words += ["--parallel", str(spec.max_parallel), "--cache-prompt", "--jinja"]
        words += ["--n-gpu-layers", "all" if spec.gpus else "0"]
        if spec.max_length is not None:
            # It divides this by its slots.
            words += ["--ctx-size", str(spec.max_length * spec.max_parallel)]
        if spec.cpus is not None:
            words += ["--threads", str(spec.cpus)]
        return [*words, *spec.options]
