"""Prefect, MLflow and every flow in the UI on this machine, with one command.

    python -m flows.stack up
    python -m flows.stack demo
    python -m flows.stack demo --deployment poc/quick --values max_pairs 4
    python -m flows.stack down

`make up`, `make demo` and `make down` do the same. Everything listens on this machine only.
"""

import sys
from collections.abc import Sequence

from flows.cli import run_command
from flows.demo import plan_demo, run_demo
from flows.stack_config import DemoConfig, PlaceConfig, StackConfig
from flows.stack_steps import plan_stack, plan_stop, start_stack, stop_stack

_PROG = "python -m flows.stack"


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; returns the exit code."""
    command, *rest = arguments or ["--help"]
    if command == "up":
        return run_command(
            StackConfig,
            start_stack,
            plan_stack,
            prog=f"{_PROG} up",
            about="Start everything, or find it running.",
            arguments=rest,
            guarded=False,
        )
    if command == "demo":
        return run_command(
            DemoConfig,
            run_demo,
            plan_demo,
            prog=f"{_PROG} demo",
            about="Start a deployment as the UI would, and follow it.",
            arguments=rest,
        )
    if command == "down":
        return run_command(
            PlaceConfig,
            stop_stack,
            plan_stop,
            prog=f"{_PROG} down",
            about="End everything.",
            arguments=rest,
        )
    print(f"usage: {_PROG} {{up,demo,down}} [--help]\n\n{__doc__}")
    return 0 if command in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
