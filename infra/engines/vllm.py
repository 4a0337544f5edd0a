"""vLLM: the default on Slurm. `executable` is its program `vllm`, or the Python that has it.

VLLM().command(spec, port)
"""

from __future__ import annotations

from pathlib import PurePath
from typing import ClassVar

from infra.cluster import EngineName
from infra.engines.base import Capability, Engine, ServeSpec


class VLLM(Engine):
    """An OpenAI-compatible server with chat, completions and log-probabilities of prompts."""

    name: ClassVar[EngineName] = "vllm"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"seed", "stop", "logprobs", "grammar", "repetition_penalty", "scoring"}
    )
    key_variable: ClassVar[str] = "VLLM_API_KEY"

    def arguments(self, spec: ServeSpec, port: int) -> list[str]:
        """Return the server's command line."""
        words = [*_program(spec.executable or "vllm", spec.model)]
        words += [f"--served-model-name={spec.served_name}", f"--dtype={spec.dtype}"]
        words += ["--host=127.0.0.1", f"--port={port}", "--disable-uvicorn-access-log"]
        words += ["--enable-prefix-caching", f"--max-num-seqs={spec.max_parallel}"]
        # A model's generation_config.json must not add a top-k or a penalty that nobody asked for.
        words.append("--generation-config=vllm")
        if spec.device == "cpu":
            # 0.32.0 dies of a seeded request whose prompt is read in pieces ("CPU Generator does
            # not use offset"). Unchunked, a step must have room for the longest prompt.
            words.append("--no-enable-chunked-prefill")
            if spec.max_length is not None:
                words.append(f"--max-num-batched-tokens={max(spec.max_length, 4096)}")
        if spec.gpus > 1:
            words.append(f"--tensor-parallel-size={spec.gpus}")
        if spec.max_length is not None:
            words.append(f"--max-model-len={spec.max_length}")
        if spec.revision is not None:
            words += [f"--revision={spec.revision}", f"--tokenizer-revision={spec.revision}"]
        return [*words, *spec.options]

    def settings(self, spec: ServeSpec) -> dict[str, str]:
        """Send no usage statistics; on CPUs keep to those that the job was given."""
        said = {"VLLM_NO_USAGE_STATS": "1"}
        if spec.device == "cpu" and spec.cpus is not None:
            # Left to itself vLLM binds its threads to the first cores of the machine: two
            # instances on one machine would share those and leave the others idle.
            said |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(spec.cpus)}
        return said


def _program(executable: str, model: str) -> list[str]:
    if PurePath(executable).name == "vllm":
        return [executable, "serve", model]
    # vllm-cpu's own `vllm` program wants a distribution called vllm; its module does not.
    return [executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={model}"]
