"""An evaluation killed with -9 again and again: the result must be that of an undisturbed one.

    python benchmarks/evaluation/killed.py --suite full --kills 10
    python benchmarks/evaluation/killed.py --suite poc --model embedded --whole --folder killed

Runs a suite on two tiny random models, or on the embedded one and a copy with noise in its weights,
in a process of its own; kills it at random moments, lets it finish, and compares with a straight
run: measures, tables and every recorded call. With `--folder`, what is there is not done again, so
that the straight run can be timed on a quiet machine (`--kills 0`) and the kills come later.
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
from ccai_core.models import resolve_model
from tests.tiny_model import save_tiny_model

_PROGRAM = """
import sys
from pathlib import Path
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.run import EvaluationRequest, evaluate
from ccai_core.models import resolve_model
folder, out, suite = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
base, trained = (resolve_model(str(folder / name)) for name in ("base", "trained"))
small = dict(
    safety_prompts=8, scenario_prompts=8, capability_items=8, response_tokens=12,
    attack_prompts=2, benign_prompts=6, games=1, mt_bench_tokens=12,
)
config = EvaluationConfig(suite=suite, **({} if sys.argv[4] == "whole" else small))
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


def noisy(folder: Path) -> None:
    """Save the embedded model with 1% of noise in every weight: a model that differs a little."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = resolve_model("embedded").path
    model = AutoModelForCausalLM.from_pretrained(source)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + 0.01 * torch.randn_like(weight))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def models(folder: Path, embedded: bool) -> None:
    """Make the two models that are evaluated, where they are not there yet."""
    if (folder / "trained" / "config.json").is_file():
        return
    if embedded:
        noisy(folder / "trained")
        (folder / "base").symlink_to(resolve_model("embedded").path)
    else:
        tiny(folder / "base", 0.5)
        tiny(folder / "trained", 0.4)


def run(folder: Path, out: Path, suite: str, sizes: str) -> subprocess.Popen[bytes]:
    """Start one evaluation."""
    command = [sys.executable, "-c", _PROGRAM, str(folder), str(out), suite, sizes]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log)  # noqa: S603 - our own, no shell


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


def straight_run(folder: Path, suite: str, sizes: str) -> float:
    """Return the seconds of a run that nothing disturbs, done now or before."""
    took = folder / "straight.seconds"
    if not took.is_file():
        began = time.monotonic()
        finish(run(folder, folder / "straight", suite, sizes))
        took.write_text(str(time.monotonic() - began))
    return float(took.read_text())


def killed_run(folder: Path, suite: str, sizes: str, kills: int, took: float, seed: int) -> int:
    """Kill a run again and again, let it finish, and return how often it was killed."""
    rng = random.Random(seed)
    out, count = folder / "killed", folder / "killed.count"
    done = int(count.read_text()) if count.is_file() else 0
    while done < kills:
        process = run(folder, out, suite, sizes)
        # Let it record something, or nothing would be at stake.
        if not grown(process, out / "j.jsonl"):
            break
        time.sleep(rng.uniform(0, took / (2 * kills)))
        process.kill()
        process.wait()
        done += 1
        count.write_text(str(done))
    finish(run(folder, out, suite, sizes))
    return done


def main(folder: Path, suite: str, model: str, whole: bool, kills: int, seed: int) -> int:
    """Return 0 when nothing differs."""
    sizes = "whole" if whole else "small"
    models(folder, model == "embedded")
    took = straight_run(folder, suite, sizes)
    once = keys(folder / "straight")
    print(f"straight run {took:.0f} s, {len(once)} calls", flush=True)
    if not kills:
        return 0
    killed = killed_run(folder, suite, sizes, kills, took, seed)
    again = keys(folder / "killed")
    same = found(folder / "straight") == found(folder / "killed")
    repeated = len(again) - len(set(again))
    print(f"killed {killed} times")
    print(f"results identical: {same}; same calls: {set(once) == set(again)}")
    print(f"lines recorded twice (batches that were torn): {repeated}")
    return 0 if same and set(once) == set(again) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="full")
    parser.add_argument("--model", choices=("tiny", "embedded"), default="tiny")
    parser.add_argument("--whole", action="store_true", help="as large as the suite is")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept, to go on in; none: a temporary one")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = (chosen.folder or Path(name)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        sys.exit(main(place, chosen.suite, chosen.model, chosen.whole, chosen.kills, chosen.seed))
