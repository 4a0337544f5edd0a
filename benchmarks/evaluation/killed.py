"""An evaluation killed with -9 again and again: the result must be that of an undisturbed one.

    python benchmarks/evaluation/killed.py --suite full --kills 10

Runs a suite on two tiny random models in a process of its own, kills it at random moments, lets it
finish, and compares with a straight run: measures, tables and every recorded call.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from ccai_core.journal_lines import read_lines
from tests.tiny_model import save_tiny_model

_PROGRAM = """
import sys
from pathlib import Path
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.run import EvaluationRequest, evaluate
from ccai_core.models import resolve_model
folder, out, suite = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
base, trained = (resolve_model(str(folder / name)) for name in ("base", "trained"))
config = EvaluationConfig(
    suite=suite, safety_prompts=8, scenario_prompts=8, capability_items=8, response_tokens=12,
    attack_prompts=2, benign_prompts=6, games=1, mt_bench_tokens=12,
)
evaluate(EvaluationRequest(baseline=base, trained=trained, config=config), out, out / "j.jsonl")
"""


def found(out: Path) -> tuple[object, object]:
    """Return the measures and tables of a finished evaluation."""
    result = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    return result["metrics"], result["tables"]


def keys(out: Path) -> list[str]:
    """Return the key of every line of the journal, repeated ones too."""
    return [record[0] for _, record in read_lines(out / "j.jsonl") if record is not None]


def tiny(folder: Path, spread: float) -> None:
    """Save a tiny model whose context window holds what a suite asks."""
    save_tiny_model(folder, vocabulary=512, spread=spread)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 8192
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def run(folder: Path, out: Path, suite: str) -> subprocess.Popen[bytes]:
    """Start one evaluation."""
    command = [sys.executable, "-c", _PROGRAM, str(folder), str(out), suite]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own, no shell


def grown(process: subprocess.Popen[bytes], journal: Path) -> bool:
    """Wait until a process has recorded a call; False if it ended first."""
    before = journal.stat().st_size if journal.exists() else 0
    while process.poll() is None:
        if journal.exists() and journal.stat().st_size > before:
            return True
        time.sleep(0.02)
    return False


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for an evaluation that must succeed."""
    if process.wait():
        raise SystemExit("The evaluation failed; see above.")


def main(suite: str, kills: int, seed: int) -> int:
    """Return 0 when nothing differs."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny(folder / "base", 0.5)
        tiny(folder / "trained", 0.4)
        began = time.monotonic()
        straight = folder / "straight"
        finish(run(folder, straight, suite))
        took = time.monotonic() - began
        out = folder / "killed"
        killed = 0
        while killed < kills:
            process = run(folder, out, suite)
            # Let it record something, or nothing would be at stake.
            if not grown(process, out / "j.jsonl"):
                break
            time.sleep(rng.uniform(0, took / (2 * kills)))
            process.kill()
            process.wait()
            killed += 1
        finish(run(folder, out, suite))
        once, again = keys(straight), keys(out)
        same = found(straight) == found(out)
        repeated = len(again) - len(set(again))
        print(f"straight run {took:.0f} s, {len(once)} calls; killed {killed} times")
        print(f"results identical: {same}; same calls: {set(once) == set(again)}")
        print(f"lines recorded twice (batches that were torn): {repeated}")
        return 0 if same and set(once) == set(again) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="full")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    sys.exit(main(chosen.suite, chosen.kills, chosen.seed))
