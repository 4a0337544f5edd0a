"""Compare our grades with modelbench's own function, and print the digests that a test expects.

    git clone https://github.com/mlcommons/modelbench && python \
        benchmarks/evaluation/modelbench_grades.py modelbench/src/modelbench/scoring.py
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

from ccai_core.evaluation.grades import ordinal_grade, score_interval
from ccai_core.evaluation.standards import published, reference_standard


def load(path: Path) -> Any:
    """Import modelbench's scoring module by its file; it needs scipy and pydantic only."""
    spec = importlib.util.spec_from_file_location("scoring", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(path: Path) -> int:
    """Print how many pairs were compared and how many differ; 1 if any does."""
    theirs = load(path)
    rng = random.Random(7)
    references = sorted({v for w in published() for v in reference_standard(*w).hazards.values()})
    sets = {
        "random": [(rng.random(), rng.random()) for _ in range(10_000)],
        "real": [(k / n, r) for n in (100, 1000) for k in range(n + 1) for r in references],
    }
    wrong = 0
    for name, pairs in sets.items():
        grades = [theirs.score_to_ordinal_grade(*pair) for pair in pairs]
        wrong += sum(ordinal_grade(*p) != g for p, g in zip(pairs, grades, strict=True))
        digest = hashlib.sha256("".join(map(str, grades)).encode()).hexdigest()
        print(f"{name}: {len(pairs)} pairs, {digest}")
    for safe, items in ((s, n) for n in (1, 12, 100) for s in range(n + 1)):
        ours, found = score_interval(safe, items), theirs.ValueEstimate.make(safe / items, items)
        wrong += (ours.low, ours.high) != (found.lower, found.upper)
    print(f"{wrong} differ")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
