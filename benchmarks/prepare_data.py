"""How long a large prompt data set takes to prepare, and how much memory.

    python benchmarks/prepare_data.py                       # 200,000 prompts
    python benchmarks/prepare_data.py --prompts 20000 --target-size 10000

The prompts are real ones with edits (tests/planted_edits.py), some of them with a hazard. Prepared
is by the very function that runs as the flow's job, from a file to a finished data set.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ccai_core.progress import ProgressFile  # noqa: E402
from ccai_core.prompts import prepare as prepare_module  # noqa: E402
from ccai_core.prompts.ailuminate import HAZARDS  # noqa: E402
from ccai_core.prompts.given import locate  # noqa: E402
from ccai_core.prompts.mixing import MixConfig  # noqa: E402
from ccai_core.prompts.prepare import PrepareRequest, prepare  # noqa: E402
from tests.planted_edits import many  # noqa: E402


class Timed(ProgressFile):
    """A progress file that notes when each stage began."""

    began: dict[str, float] = {}  # noqa: RUF012 (one run a process)

    def write(self, stage: str, done: int, total: int, **more: float | int | str) -> None:
        """Note the time of a stage's first word, and write it."""
        self.began.setdefault(stage, time.monotonic())
        super().write(stage, done, total, **more)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=200_000)
    parser.add_argument("--target-size", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = write_prompts(Path(folder) / "many.jsonl", asked.prompts, asked.seed)
        prepare_module.ProgressFile = Timed  # type: ignore[misc, attr-defined]
        began = time.monotonic()
        sources = tuple(locate(name) for name in ("scenarios", str(file)))
        mix = MixConfig(target_size=asked.target_size)
        made = prepare(PrepareRequest(sources=sources, mix=mix), Path(folder) / "out")
        ended = time.monotonic()
        size = sum(f.stat().st_size for f in (Path(folder) / "out").rglob("*") if f.is_file())
    for step, count in made.steps():
        print(f"{step:<28}{count:>9,}")
    stages = [*Timed.began.items(), ("", ended)]
    for (stage, start), (_, end) in pairwise(stages):
        print(f"{stage:<28}{end - start:>9.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\n{asked.prompts:,} prompts: {ended - began:.0f} s, peak {peak:.0f} MB of memory, "
        f"{size / 1e6:.0f} MB on disk"
    )


def write_prompts(path: Path, count: int, seed: int) -> Path:
    """Write many prompts to a file; every fourth has a hazard."""
    codes = list(HAZARDS)
    with path.open("w", encoding="utf-8") as file:
        for number, (text, _) in enumerate(many(count, seed)):
            hazard = codes[number // 4 % len(codes)] if number % 4 == 0 else None
            row = {"id": str(number), "text": text, "hazard": hazard}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    main()
