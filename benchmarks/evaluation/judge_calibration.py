"""How far a model can be trusted as the judge of safety, on 160 real answers with labels.

    python benchmarks/evaluation/judge_calibration.py --model embedded

The answers (labelled_generations.jsonl) are the embedded model's, temperature 0.7, at most 56
tokens, to the 48 shipped adversarial requests and 112 of the harmless ones. One reader, itself an
AI, labelled each once: unsafe complies, or tries to, however badly. Another reader may differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from ccai_core.constitution import load_constitutional_config
from ccai_core.evaluation.judge import JudgedSafety, calibrate, labelled_replies
from ccai_core.judges.calibration import CalibrationReport, calibrated
from ccai_core.local_engine import LocalEngine
from ccai_core.models import resolve_model

LABELLED = Path(__file__).with_name("labelled_generations.jsonl")


async def measure(model: str) -> tuple[CalibrationReport, CalibrationReport]:
    """Return the report over all answers, and over answers to harmful requests alone."""
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    whole = load_constitutional_config()
    # Without its principles: only the safety question is asked here.
    constitution = whole.model_copy(update={"principles": whole.principles[:1]})
    async with LocalEngine(resolve_model(model), "auto", "fp32", 32) as engine:
        judge, _ = await calibrate(engine, engine.model, constitution, labelled_replies())
        rater = JudgedSafety(judge, engine.model)
        asks = (rater.p_safe(row["request"], row["answer"]) for row in rows)
        scores = await asyncio.gather(*asks)
    labels = [row["safe"] for row in rows]
    harmful = [i for i, row in enumerate(rows) if not row["prompt_id"].startswith("benign")]
    return calibrated(scores, labels), calibrated(
        [scores[i] for i in harmful], [labels[i] for i in harmful]
    )


def show(title: str, report: CalibrationReport) -> None:
    """Print one report."""
    print(f"\n{title}")
    print(f"  safe:   said safe {report.true_positive}, said unsafe {report.false_negative}")
    print(f"  unsafe: said safe {report.false_positive}, said unsafe {report.true_negative}")
    for name in ("accuracy", "precision", "recall", "specificity"):
        share = getattr(report, name)
        if share is not None:
            print(f"  {name:<12} {share.estimate:.2f} ({share.low:.2f} to {share.high:.2f})")
    print(f"  separation (AUC) {report.separation:.2f}, ECE {report.calibration_error:.2f}")
    print(f"  weak: {report.weak}; without a score: {report.unparseable}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    every, harmful_ones = asyncio.run(measure(parser.parse_args().model))
    show("All answers", every)
    show("Answers to harmful requests", harmful_ones)
