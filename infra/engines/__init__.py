"""Inference engines as small adapters: each knows its command line and what its API can do.

command = engine("vllm").command(spec, port)
"""

from __future__ import annotations

from infra.cluster import EngineName
from infra.engines.base import Capability, Engine, ServeSpec
from infra.engines.llamacpp import LlamaCpp
from infra.engines.sglang import SGLang
from infra.engines.tgi import TGI
from infra.engines.transformers import Transformers
from infra.engines.vllm import VLLM

__all__ = ["Capability", "Engine", "ServeSpec", "engine"]

_ENGINES: dict[EngineName, Engine] = {
    each.name: each for each in (TGI(), VLLM(), SGLang(), Transformers(), LlamaCpp())
}


def engine(name: EngineName) -> Engine:
    """Return the adapter of an engine."""
    return _ENGINES[name]
