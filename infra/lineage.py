"""Where a model, a data set or a report came from, and how to make it again.

    python -m infra.lineage runs/poc/report.html
    python -m infra.lineage pairs-3f2a --workspace runs/poc --draw lineage.svg
    python -m infra.lineage training-77c0 --reproduce
    python -m infra.lineage training-77c0 --reproduce --into runs/again --run

Exit code 0: all is there and as it was; 1: something is gone or was changed, or what was made again
is not the same; 2: there is no such thing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ccai_core.errors import CCAIError, ConfigError
from ccai_core.files import write_whole
from infra.lineage_again import Again, plan_again
from infra.lineage_draw import FORMS, drawing, tree
from infra.lineage_trace import Node, trace


def main(arguments: Sequence[str] | None = None) -> int:
    """Show a lineage; return the exit code."""
    asked = _parser().parse_args(arguments)
    out = Console(highlight=False, soft_wrap=True)
    try:
        if asked.draw and asked.draw.suffix not in FORMS:
            raise ConfigError(f"--draw {asked.draw}: must end in {', '.join(FORMS)}.")
        node = trace(asked.thing, asked.workspace, asked.tracking_uri, asked.verify)
        out.print(tree(node))
        if asked.draw:
            write_whole(asked.draw, drawing(node, asked.draw.suffix))
            out.print(Text(f"Drawn: {asked.draw}"))
        wrong = sum(len(each.problems) for each in node.walk())
        if wrong:
            out.print(Text(f"{wrong} things are not as they were (marked !).", style="bold red"))
        is_same = _again(node, asked, out) if asked.reproduce else True
    except CCAIError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"Error: {error}"))
        return 2
    return 1 if wrong or not is_same else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.lineage",
        description="Where a model, a data set or a report came from, and how to make it again.",
    )
    parser.add_argument("thing", help="a path, the name of an artifact, or the id of an MLflow run")
    parser.add_argument(
        "--workspace", type=Path, default=Path("runs/poc"), help="where names are looked up"
    )
    parser.add_argument(
        "--tracking-uri", help="MLflow store; default: $MLFLOW_TRACKING_URI, else the workspace's"
    )
    parser.add_argument("--draw", type=Path, metavar="FILE", help="also as .svg, .mmd or .md")
    parser.add_argument("--verify", action="store_true", help="read every file again and compare")
    parser.add_argument("--reproduce", action="store_true", help="print the commands that made it")
    parser.add_argument("--into", type=Path, help="with --reproduce: a workspace to make it in")
    parser.add_argument("--run", action="store_true", help="with --into: run the commands")
    return parser


def _again(node: Node, asked: argparse.Namespace, out: Console) -> bool:
    if asked.run and not asked.into:
        raise ConfigError(
            "--run needs --into, a workspace to make it in: in its own one, what is there already "
            "would only be found again."
        )
    again = plan_again(node, asked.into)
    for line in again.lines():
        out.print(Text(line))
    return _run(again, node, out) if asked.run else True


def _run(again: Again, node: Node, out: Console) -> bool:
    again.run()
    differing = again.differences(node)
    for line in differing:
        out.print(Text(f"! {line}", style="bold red"))
    if not differing:
        out.print(Text("Made again: every artifact holds the very same.", style="bold green"))
    return not differing


if __name__ == "__main__":
    sys.exit(main())
