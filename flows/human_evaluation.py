"""Expert review: blinded answers out to people, what they think of them back as numbers.

    python -m flows.human_evaluation build --answers runs/poc/artifacts/evaluation-3f2a
    python -m flows.human_evaluation build --answers mine.jsonl --models base tuned --reviewers 6
    python -m flows.human_evaluation collect expert-review-*.json

`build` makes a zip with one page a reviewer, which works offline by double click, and beside it the
key, which says which model wrote what: keep it from reviewers. `collect` checks the files that come
back, takes the blinds off, and reports.
"""

import sys
from collections.abc import Sequence

from flows.cli import run_command
from flows.human_evaluation_config import BuildReviewConfig, CollectReviewConfig
from flows.human_evaluation_steps import (
    build_review,
    collect_review,
    plan_build,
    plan_collect,
)

_PROG = "python -m flows.human_evaluation"


def main(arguments: Sequence[str]) -> int:
    """Run one of the two commands; returns the exit code."""
    command, *rest = arguments or ["--help"]
    if command == "build":
        return run_command(
            BuildReviewConfig,
            build_review,
            plan_build,
            prog=f"{_PROG} build",
            about="Make the package for reviewers, and its key.",
            arguments=rest,
        )
    if command == "collect":
        return run_command(
            CollectReviewConfig,
            collect_review,
            plan_collect,
            prog=f"{_PROG} collect",
            about="Check reviewers' files, take the blinds off, and report.",
            arguments=rest,
        )
    print(f"usage: {_PROG} {{build,collect}} [--help]\n\n{__doc__}")
    return 0 if command in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
