"""Our own server over transformers: CUDA, MPS and CPU, the local default.

Transformers().command(spec, port)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from ccai_core.errors import ConfigError
from infra.cluster import EngineName
from infra.engines.base import Capability, Engine, ServeSpec


class Transformers(Engine):
    """`python -m ccai_core.serve`: chat, completions and scoring, one batch after the other."""

    name: ClassVar[EngineName] = "transformers"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"seed", "stop", "repetition_penalty", "scoring"}
    )
    key_variable: ClassVar[str] = "CCAI_API_KEY"

    def arguments(self, spec: ServeSpec, port: int) -> list[str]:
        """Return the server's command line.

        Raises:
            ConfigError: several GPUs.
        """
        if spec.gpus > 1:
            raise ConfigError(
                "The transformers engine uses one GPU: set gpus to 1, or take vllm for tensor "
                "parallel."
            )
        model = spec.model
        # A folder is what it is; vLLM, too, looks at the revision of names on the hub alone.
        if spec.revision is not None and not Path(model).is_dir():
            model = f"{model}@{spec.revision}"
        # -P: a file of the working directory called like one of our modules must not replace it.
        words = [spec.executable or sys.executable, "-P", "-m", "ccai_core.serve"]
        words += [f"--model={model}", f"--served-name={spec.served_name}"]
        words += ["--host=127.0.0.1", f"--port={port}", f"--device={spec.device}"]
        words += [f"--dtype={spec.dtype}", f"--batch-size={spec.max_parallel}"]
        if spec.max_length is not None:
            words.append(f"--max-length={spec.max_length}")
        return [*words, *spec.options]

    def settings(self, spec: ServeSpec) -> dict[str, str]:
        """Use as many threads as there are cores for it."""
        return {} if spec.cpus is None else {"OMP_NUM_THREADS": str(spec.cpus)}
