"""What the tests of swarms share: a profile, a stand-in engine, a template, a way to ask."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from infra.swarm import FleetConfig, Swarm
from tests.engines.programs import program

MODEL = "some/model"
PORT = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"

# As llm-swarm's own: what it asks of Slurm, an own port, the address into the hosts file, a server.
TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name=llm-swarm
#SBATCH --partition main
#SBATCH --gpus={{gpus}}
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=300M
#SBATCH -o slurm/logs/%x_%j.out

export model={{model}}
export revision="{{revision}}"
export PORT=$(PYTHON -c "GET_PORT")
BEFORE
echo "http://127.0.0.1:$PORT" >> {{slurm_hosts_path}}
srun PROGRAM \\
    --model-id $model \\
    --revision $revision \\
    --max-total-tokens {{model_max_length}} \\
    --max-input-tokens {{model_input_length}} \\
    --hostname 127.0.0.1 --port $PORT

echo "End of job"
"""


def profile(place: Path, **changes: Any) -> str:
    """Write a profile of this machine; return its path."""
    said = {"kind": "local", "lease_seconds": 5, "limits": {"max_jobs": 8}, **changes}
    file = place / "mine.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in said.items()))
    return str(file)


def config(place: Path, *options: str, **changes: Any) -> FleetConfig:
    """A configuration for stand-ins of the engine that is named; vllm's if none is."""
    name = changes.setdefault("inference_engine", "vllm")
    said = {
        "model": MODEL, "gpus": 0, "instances": 1, "slurm_template_path": "",
        "cluster": changes.pop("cluster", None) or profile(place), "workspace": str(place / "work"),
    }  # fmt: skip
    if not changes.get("slurm_template_path"):
        said |= {"executable": program(place, name), "options": list(options)}
    return FleetConfig(**{**said, **changes})


def template(place: Path, srun: str = "", before: str = "") -> str:
    """Write a template of TGI's stand-in; return its path."""
    text = TEMPLATE.replace("srun ", srun).replace("PYTHON", sys.executable)
    text = text.replace("GET_PORT", PORT).replace("BEFORE", before)
    file = place / "tgi.template.slurm"
    file.write_text(text.replace("PROGRAM", program(place, "tgi")))
    return str(file)


def base(swarm: Swarm) -> str:
    return swarm.endpoint.removesuffix("/generate")


def chat(swarm: Swarm, **asked: Any) -> str:
    """Ask as a script does that knows of no key."""
    message = {"role": "user", "content": "Hi"}
    body = {"model": MODEL, "messages": [message], "max_tokens": 3, **asked}
    answer = httpx.post(f"{base(swarm)}/v1/chat/completions", json=body, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found
