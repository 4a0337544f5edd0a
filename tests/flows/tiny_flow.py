"""A flow small enough for tests: a tiny model that stops by itself, settings that keep its babble.

Random weights write garbage, so every quality threshold is open; what is tested is the way from
principles to report, not the text.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml
from safetensors.torch import load_file, save_file

from ccai_core.constitution import load_constitutional_config
from ccai_core.prompts.scenarios import shipped_scenarios
from infra.processes import job_processes
from tests.tiny_model import save_tiny_model

ROOT = Path(__file__).parents[2]
_END_TOKEN = 2  # <|im_end|>

CONSTITUTION = """\
# Two principles

## Mindfulness
1. Choose the response that notices what the person feels.

## Honesty
1. Choose the response that says what is uncertain.
"""

TINY: dict[str, Any] = {
    "max_pairs": 12,
    "device": "cpu",
    "preferences": {
        "generation": {
            "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "batch_size": 8,
            "response_tokens": 24, "critique_tokens": 24, "revision_tokens": 24,
        },
        "quality": {
            "min_words": 1, "max_words": 10_000, "max_length_ratio": 1000.0,
            "max_repetition": 1.0, "max_similarity": 1.0, "max_copied": 1.0,
            "min_topic_overlap": 0.0,
        },
    },
    "training": {"epochs": 1, "learning_rate": 1e-3, "save_steps": 2},
    "evaluation": {
        "safety_prompts": 4, "scenario_prompts": 4, "capability_items": 2, "response_tokens": 8,
        "examples": 2,
    },
}  # fmt: skip


def save_stopping_model(folder: Path) -> Path:
    """Save a tiny model that ends about one in ten words and reads whole conversations."""
    whole = load_constitutional_config()
    corpus = [p.text for p in shipped_scenarios()] + [p.critique for p in whole.principles]
    save_tiny_model(folder, corpus, vocabulary=1500)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][_END_TOKEN] *= 3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 4096
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Save model and constitution in `folder`; return settings that use them, workspace `ws`."""
    (folder / "principles.md").write_text(CONSTITUTION)
    return {
        **TINY,
        "model": str(save_stopping_model(folder / "tiny")),
        "constitution": str(folder / "principles.md"),
        "workspace": str(folder / "ws"),
        **changes,
    }


class Command:
    """A flow's command as a process of its own, in a session of its own as in a terminal."""

    def __init__(
        self, flow: str, values: dict[str, Any], folder: Path, api: str, *options: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "settings.yaml"
        settings.write_text(yaml.safe_dump(values))
        self.folder = folder
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"flows.{flow}", "--config", str(settings), *options],
                cwd=ROOT,
                env=os.environ | {"PREFECT_API_URL": api},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def ended(self, seconds: float = 120) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End the driver as `kill -9` does; its jobs are in sessions of their own."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def said(self) -> str:
        return f"{self.out.read_text()}\n--- stderr\n{self.err.read_text()}"


def alive(workspace: Path, kind: str = "") -> list[psutil.Process]:
    """Return the living processes of a workspace's jobs (of one kind)."""
    folders = (workspace.resolve() / "jobs").glob(f"{kind}*/attempt-*")
    return [process for folder in folders for process in job_processes(str(folder))]


def wait_for(condition: Callable[[], Any], seconds: float = 120, every: float = 0.02) -> Any:
    """Wait until the condition says something, and return that."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(every)
    return found


def attempts(workspace: Path) -> dict[str, int]:
    """Return how often each kind of job was started."""
    counts: Counter[str] = Counter()
    for folder in (workspace / "jobs").glob("*/attempt-*"):
        counts[folder.parent.name.split("-")[0]] += 1
    return dict(counts)
