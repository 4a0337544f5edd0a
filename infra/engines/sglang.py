"""SGLang. `executable` is the Python that has it.

SGLang().command(spec, port)
"""

from __future__ import annotations

from typing import ClassVar

from infra.cluster import EngineName
from infra.engines.base import Capability, Engine, ServeSpec

# SGLang takes its key from the command line alone, which every user of the machine can read.
# Put there inside the process, it stays inside: nobody sees what sys.argv has become.
_START = (
    "import os, runpy, sys; "
    "sys.argv[1:1] = ['--api-key', os.environ['CCAI_API_KEY']]; "
    "runpy.run_module('sglang.launch_server', run_name='__main__', alter_sys=True)"
)


class SGLang(Engine):
    """An OpenAI-compatible server with a prefix cache that is always on.

    `seed` is not among its capabilities: without --enable-deterministic-inference it is taken
    and has no effect. `scoring` is not, because its prompts' log-probabilities were never tried.
    """

    name: ClassVar[EngineName] = "sglang"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"stop", "logprobs", "grammar", "repetition_penalty"}
    )
    key_variable: ClassVar[str] = "CCAI_API_KEY"

    def arguments(self, spec: ServeSpec, port: int) -> list[str]:
        """Return the server's command line."""
        words = [spec.executable or "python3", "-c", _START]
        words += [f"--model-path={spec.model}", f"--served-model-name={spec.served_name}"]
        words += ["--host=127.0.0.1", f"--port={port}", f"--dtype={spec.dtype}"]
        words += [f"--tp-size={max(1, spec.gpus)}", f"--max-running-requests={spec.max_parallel}"]
        if spec.device != "auto":
            words.append(f"--device={spec.device}")
        if spec.max_length is not None:
            words.append(f"--context-length={spec.max_length}")
        if spec.revision is not None:
            words.append(f"--revision={spec.revision}")
        return [*words, *spec.options]
