"""Several processes that train one model together, as torchrun would start them.

for each in start_together(2, "tests.together:train_tiny", folder, {"zero": 3}): each.wait()
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_RUN = "import sys; from tests.together import main; main(sys.argv[1:])"


def start_together(ranks: int, function: str, *arguments: Any) -> list[subprocess.Popen[str]]:
    """Start `function` (module:name) in each process, with arguments that JSON can hold."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-c", _RUN, function, json.dumps(arguments, default=str)],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(ranks)
    ]


def main(words: list[str]) -> None:
    """Be one of the processes."""
    function, arguments = words
    module, name = function.split(":")
    getattr(importlib.import_module(module), name)(*json.loads(arguments))


def train_tiny(model: str, pairs: str, out: str, settings: dict[str, Any]) -> None:
    """Train; prints the step that it went on from."""
    from ccai_core.dpo import train
    from ccai_core.models import resolve_model
    from ccai_core.training_config import TrainingConfig

    config = TrainingConfig.model_validate(settings)
    result = train(config, resolve_model(model), Path(pairs), Path(out), "cpu")
    print(f"resumed from {result.resumed_from}", flush=True)


def by_first(good: bool) -> None:
    """Print what the first process has made, in each of them."""
    from ccai_core.errors import DataError
    from ccai_core.ranks import joined

    with joined("cpu") as ranks:

        def make() -> str:
            if not good:
                raise DataError("cannot be made")
            return f"made by {ranks.rank}"

        print(ranks.by_first(make), ranks.gather(ranks.rank))
