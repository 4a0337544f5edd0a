"""Make room in a workspace: say what nobody needs any more, and remove it.

    python -m infra.gc --workspace runs/poc --dry-run
    python -m infra.gc --workspace runs/poc --older-than 30
    python -m infra.gc --workspace runs/poc --dry-run --quota-gb 500      # exit code 1 when over it

What a registered model, a report or anything that runs refers to is never removed, nor what that
was made from, nor journals of model calls, MLflow's runs and what was written to lately. While a
flow or a job works in the workspace nothing is removed at all.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ccai_core.errors import ArtifactError, CCAIError
from infra.gc_plan import REMOVED, Item, Survey, survey
from infra.origin import store_of

_GB = 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Survey a workspace and remove what nobody needs; return the exit code."""
    asked = _parser().parse_args(arguments)
    out = Console(highlight=False, soft_wrap=True)
    root: Path = asked.workspace.expanduser().resolve()
    try:
        found = _survey(asked, root)
        _show(found, root, asked.all, out)
        if asked.dry_run:
            out.print(Text("A dry run: nothing was removed."))
        elif found.removable:
            freed = _remove(asked, root)
            out.print(Text(f"Removed: {_amount(freed)}.", style="bold green"))
        over = _over_quota(asked, root, out)
    except CCAIError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"Error: {error}"))
        return 2
    return 1 if over else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.gc", description="Remove from a workspace what nobody needs any more."
    )
    parser.add_argument("--workspace", type=Path, default=Path("runs/poc"))
    parser.add_argument("--dry-run", action="store_true", help="say it, remove nothing")
    parser.add_argument(
        "--older-than", type=float, default=14.0, metavar="DAYS", help="keep what is newer (14)"
    )
    parser.add_argument(
        "--tracking-uri", help="MLflow store with the registered models; default: as flows do"
    )
    parser.add_argument(
        "--also", type=Path, nargs="+", default=[], metavar="FOLDER",
        help="other workspaces, or folders of reports, that may refer to this one",
    )  # fmt: skip
    parser.add_argument("--quota-gb", type=float, help="warn when the workspace is larger")
    parser.add_argument("--all", action="store_true", help="also list what is needed, and by whom")
    return parser


def _survey(asked: argparse.Namespace, root: Path, held: bool = False) -> Survey:
    uri = store_of(root / "artifacts" / "any", asked.tracking_uri)
    return survey(root, uri, asked.older_than, asked.also, held=held)


def _show(found: Survey, root: Path, everything: bool, out: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("size", justify="right", no_wrap=True)
    for heading in ("what", "where", "needed by"):
        table.add_column(heading)
    kept = sorted((each for each in found.items if each.needed), key=lambda each: -each.size)
    for each in (*found.removable, *(kept if everything else ())):
        where = Text(str(each.path.relative_to(root)))
        table.add_row(_amount(each.size), each.kind, where, Text(each.needed or "nobody"))
    if table.row_count:
        out.print(table)
    size = sum(each.size for each in found.removable)
    words = f"{root}: {_amount(found.total)}; nobody needs {_amount(size)} of it."
    out.print(Text(words, style="bold"))
    if found.busy:
        out.print(Text(f"In use ({found.busy}): nothing can be removed now.", style="yellow"))


def _remove(asked: argparse.Namespace, root: Path) -> int:
    """Remove what nobody needs, looked at again while nobody else can work here.

    Raises:
        ArtifactError: somebody works in the workspace.
    """
    # The lock alone: to sign it as flows do needs room, and here there may be none.
    try:
        with FileLock(root / ".lock", timeout=0):
            found = _survey(asked, root, held=True)
            if found.busy:
                raise ArtifactError(f"{root} is in use ({found.busy}); nothing was removed.")
            return sum(map(_remove_one, found.removable))
    except Timeout:
        raise ArtifactError(
            f"{root} is in use by a flow; nothing was removed. Wait for its end, or end it."
        ) from None


def _remove_one(item: Item) -> int:
    gone = item.path
    if not gone.name.startswith(REMOVED):
        # First out of sight at once: half of an artifact must never be taken for one.
        gone = item.path.parent / f"{REMOVED}{item.path.parent.name}-{item.path.name}"
        item.path.rename(gone)
    shutil.rmtree(gone)
    return item.size


def _over_quota(asked: argparse.Namespace, root: Path, out: Console) -> bool:
    if asked.quota_gb is None:
        return False
    total = _survey(asked, root).total
    if total <= asked.quota_gb * _GB:
        return False
    words = f"Over the quota: {_amount(total)} of {asked.quota_gb:g} GB."
    out.print(Text(words, style="bold red"))
    return True


def _amount(size: int) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.0f} kB"


if __name__ == "__main__":
    sys.exit(main())
