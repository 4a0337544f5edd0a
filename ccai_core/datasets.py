"""Look at the data sets of a workspace, compare two, and hand one on in another form.

    python -m ccai_core.datasets list --workspace runs/poc
    python -m ccai_core.datasets show pairs-3f2a --rows 3
    python -m ccai_core.datasets diff pairs-3f2a pairs-77c0
    python -m ccai_core.datasets export pairs-3f2a --format jsonl --to pairs.jsonl
    python -m ccai_core.datasets export pairs-3f2a --format hub --to me/my-pairs --dry-run

A data set is named by its folder, or within the workspace by its name or the beginning of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ccai_core.dataset_diff import compare_datasets
from ccai_core.dataset_export import check_repository, export, push, upload_plan
from ccai_core.dataset_info import INFO_FILE, read_info
from ccai_core.dataset_words import (
    difference_words,
    info_words,
    list_words,
    printable,
    row_words,
    warnings,
)
from ccai_core.errors import CCAIError, DataError, did_you_mean
from ccai_core.records import ARTIFACTS_FOLDER

_WORKSPACE = Path("runs/poc")
_USER_ERROR = 2


def find_dataset(name: str, workspace: Path) -> Path:
    """Return the folder of a data set: a path, or a name in the workspace or its beginning.

    Raises:
        DataError: there is none or there are several of that name; says which there are.
    """
    if Path(name).exists():
        read_info(Path(name))
        return Path(name)
    known = {folder.name: folder for folder in dataset_folders(workspace)}
    fitting = [each for each in known if each.startswith(name) or _number(each).startswith(name)]
    if name in known or len(fitting) == 1:
        return known.get(name) or known[fitting[0]]
    if fitting:
        raise DataError(f"{name}: may be {' or '.join(fitting)}. Give more of the name.")
    if not known:
        raise DataError(
            f"{name}: is no folder, and there are no data sets in {workspace}. Name the workspace "
            "with --workspace."
        )
    raise DataError(f"{name}: is no data set of {workspace}.{did_you_mean(name, known)}")


def dataset_folders(workspace: Path) -> list[Path]:
    """Return the folders of all data sets of a workspace, by name."""
    return sorted(file.parent for file in (workspace / ARTIFACTS_FOLDER).glob(f"*/{INFO_FILE}"))


def _number(name: str) -> str:
    return name.partition("-")[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; 0 when it is done, 2 when something is for the user to mend."""
    chosen = _parser().parse_args(arguments)
    try:
        _COMMANDS[chosen.command](chosen)
    except CCAIError as error:
        print(printable(str(error)), file=sys.stderr)
        return _USER_ERROR
    except BrokenPipeError:
        # Whoever read along, `head` for one, has seen enough.
        sys.stderr.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ccai_core.datasets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--workspace", type=Path, default=_WORKSPACE, help="where to look for names (%(default)s)"
    )

    def command(name: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], help=about, description=about)

    command("list", "List the data sets of a workspace.")
    show = command("show", "Say what a data set holds, from where, and on what terms.")
    show.add_argument("dataset", help="its folder, or its name or the beginning of it")
    show.add_argument("--rows", type=int, default=0, metavar="N", help="print the first N rows")
    diff = command("diff", "Say how the second data set differs from the first.")
    diff.add_argument("first", metavar="A", help="folder or name")
    diff.add_argument("second", metavar="B", help="folder or name")
    out = command("export", "Write a data set in another form, or upload it to the hub.")
    out.add_argument("dataset", help="its folder, or its name or the beginning of it")
    out.add_argument(
        "--format",
        required=True,
        choices=("jsonl", "trl", "parquet", "hub"),
        help="jsonl: all columns. trl: prompt, chosen, rejected (of prompts: prompt), as TRL reads "
        "them. parquet: the folder with card and plots, for datasets.load_dataset. hub: upload it",
    )
    out.add_argument(
        "--to",
        required=True,
        help="a new folder (a file a split), a file that ends in .jsonl (all rows), or for the hub "
        "the repository, e.g. me/my-pairs",
    )
    out.add_argument(
        "--include-restricted",
        action="store_true",
        help="also members-only text, for your own use; never to the hub",
    )
    out.add_argument("--dry-run", action="store_true", help="hub: say what would be uploaded")
    out.add_argument("--public", action="store_true", help="hub: for everybody, not private")
    return parser


def _list(chosen: argparse.Namespace) -> None:
    folders = dataset_folders(chosen.workspace)
    if not folders:
        raise DataError(
            f"There are no data sets in {chosen.workspace / 'artifacts'}. Make one with `python -m "
            "flows.prepare_data` or `flows.preference_data`, or name another --workspace."
        )
    print(list_words(folders))


def _show(chosen: argparse.Namespace) -> None:
    folder = find_dataset(chosen.dataset, chosen.workspace)
    info = read_info(folder)
    print(info_words(folder, info))
    if chosen.rows > 0:
        for warning in warnings(info):
            print(f"\n{warning}")
        print(row_words(folder, info, chosen.rows))


def _diff(chosen: argparse.Namespace) -> None:
    first, second = (find_dataset(n, chosen.workspace) for n in (chosen.first, chosen.second))
    print(difference_words(compare_datasets(first, second)))


def _export(chosen: argparse.Namespace) -> None:
    folder = find_dataset(chosen.dataset, chosen.workspace)
    if chosen.format != "hub":
        if chosen.dry_run or chosen.public:
            raise DataError("--dry-run and --public are for --format hub.")
        made = export(
            folder, chosen.format, Path(chosen.to), include_restricted=chosen.include_restricted
        )
        for file, rows in made.items():
            print(f"{file}: {rows} rows")
        if withheld := read_info(folder).withheld:
            print(f"{withheld} members-only prompts have no text in {folder}.")
        return
    check_repository(chosen.to)
    info, files = upload_plan(folder)
    visible = "for everybody" if chosen.public else "private"
    print(f"{chosen.to} ({visible}): {info.title}, {info.total} rows")
    for name, size in files.items():
        print(f"  {name}  {size:,} bytes")
    if chosen.dry_run:
        print("A dry run: nothing was uploaded.")
    else:
        print(push(folder, chosen.to, private=not chosen.public))


_COMMANDS = {"list": _list, "show": _show, "diff": _diff, "export": _export}


if __name__ == "__main__":
    sys.exit(main())
