"""The memory planner's estimate against the peak that training really reaches.

    python benchmarks/training_memory.py
    python benchmarks/training_memory.py --only full-1 lora-4

The embedded model on this machine's CPU, three updates each, in a process of its own; pairs are
made up, all of one length. Prints a table; with --device cuda it is measured on the first GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# settings, and words of each answer
WAYS: dict[str, tuple[dict[str, Any], int]] = {
    "full-1-short": ({"batch_size": 1}, 30),
    "full-1": ({"batch_size": 1}, 100),
    "full-1-long": ({"batch_size": 1}, 300),
    "full-2": ({"batch_size": 2}, 100),
    "full-4": ({"batch_size": 4}, 100),
    "full-4-checkpointing": ({"batch_size": 4, "gradient_checkpointing": True}, 100),
    "lora-1": ({"batch_size": 1, "method": "lora"}, 100),
    "lora-1-long": ({"batch_size": 1, "method": "lora"}, 300),
    "lora-4": ({"batch_size": 4, "method": "lora"}, 100),
    "lora-4-no-dropout": ({"batch_size": 4, "method": "lora", "lora_dropout": 0.0}, 100),
    "lora-4-checkpointing": (
        {"batch_size": 4, "method": "lora", "gradient_checkpointing": True}, 100,
    ),
    "lora-8-checkpointing": (
        {"batch_size": 8, "method": "lora", "gradient_checkpointing": True}, 100,
    ),
}  # fmt: skip


def measure(name: str, device: str) -> dict[str, Any]:
    """Train three updates; in a process of its own."""
    from ccai_core.dpo import train
    from ccai_core.models import resolve_model
    from ccai_core.training_config import TrainingConfig

    settings, words = WAYS[name]
    config = TrainingConfig.model_validate(
        {"epochs": 1, "gradient_accumulation": 1, "validation_fraction": 0, "save_steps": 100}
        | settings
    )
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.jsonl"
        rows = [_pair(number, words) for number in range(3 * config.batch_size)]
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        result = train(config, resolve_model("embedded"), pairs, Path(folder) / "out", device)
    return {"estimated": result.memory.total_mb, "measured": result.peak_memory_mb}


def _pair(number: int, words: int) -> dict[str, Any]:
    def turn(role: str, said: str) -> list[dict[str, str]]:
        return [{"role": role, "content": said}]

    return {
        "prompt": turn("user", f"What would you say to friend number {number} about this matter?"),
        "chosen": turn("assistant", " ".join(["kind"] * words)),
        "rejected": turn("assistant", " ".join(["cold"] * words)),
        "principle": "care", "prompt_id": str(number), "source": "made-up", "critique": "",
        "provenance": {},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sorted(WAYS), default=list(WAYS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--one", choices=sorted(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print("RESULT " + json.dumps(measure(arguments.one, arguments.device)))
        return
    print(f"{'':<24}{'estimated MB':>14}{'measured MB':>14}{'off by':>9}")
    for name in arguments.only:
        command = [sys.executable, __file__, "--one", name, "--device", arguments.device]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - our own words
        line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
        if line is None:
            print(f"{name}: failed\n{done.stderr[-2000:]}")
            continue
        found = json.loads(line.removeprefix("RESULT "))
        off = found["estimated"] / found["measured"] - 1
        print(
            f"{name:<24}{found['estimated']:>14,}{found['measured']:>14,}{off:>+9.0%}", flush=True
        )


if __name__ == "__main__":
    main()
