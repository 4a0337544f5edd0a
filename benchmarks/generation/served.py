"""The engine that flows use, in front of servers that a benchmark started itself.

with started_server(delay_ms=100) as url:
    engines = Served((url,), places=512)
    generate_pairs(request, out, journal, engines)
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.generation.standin import MODEL
from ccai_core.chat_tokens import ChatTokens
from ccai_core.models import ModelRef, Precision, load_tokenizer, resolve_model
from infra.client import Client
from infra.cluster import EngineName
from infra.endpoint import Endpoint, key_id
from infra.engines import ServeSpec
from tasks.fleet_engines import FleetEngine

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Served:
    """`OpenEngine` over servers at known addresses."""

    urls: tuple[str, ...]
    places: int
    """Calls that each takes at once."""
    model: str = MODEL
    """What they call their model."""
    engine: EngineName = "vllm"
    key: str = "benchmark"

    @contextlib.asynccontextmanager
    async def __call__(
        self, model: ModelRef, precision: Precision = "auto", batch_size: int = 32
    ) -> AsyncIterator[FleetEngine]:
        """Ask them, until the block is left."""
        endpoints = [
            Endpoint(
                instance=str(number), url=url, model=self.model, engine=self.engine,
                max_parallel=self.places, host="here", pid=1, job_id=str(number), started="",
                key_id=key_id(self.key),
            )
            for number, url in enumerate(self.urls)
        ]  # fmt: skip
        spec = ServeSpec(engine=self.engine, model=str(model.path), served_name=model.identity)
        async with Client(lambda: endpoints, self.key) as client:
            yield FleetEngine(model, client, ChatTokens(load_tokenizer(model)), spec)


def tiny_model(folder: Path) -> ModelRef:
    """Make a tiny model's folder: its tokenizer is wanted. In a process of its own, for torch."""
    program = "import sys, tests.tiny_model as tiny; tiny.save_tiny_model(tiny.Path(sys.argv[1]))"
    subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", program, str(folder)], cwd=_ROOT, check=True, capture_output=True
    )
    return resolve_model(str(folder))


@contextlib.contextmanager
def started_server(delay_ms: float = 0.0) -> Iterator[str]:
    """Run instant_server.py in a process of its own; yield its address."""
    program = str(Path(__file__).with_name("instant_server.py"))
    server = subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, program, f"--delay-ms={delay_ms}"], stdout=subprocess.PIPE, text=True
    )
    try:
        port = int(server.stdout.readline()) if server.stdout else 0
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
