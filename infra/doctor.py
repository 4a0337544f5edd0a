"""Check a cluster profile before it is used: a list of findings, and what to do about each.

It looks at the profile and at Slurm, then submits one tiny job a role that looks around where it
lands. With errors before that, nothing is submitted.

    python -m infra.doctor --cluster my-cluster
    python -m infra.doctor --cluster my-cluster --dry-run     # shows the jobs, submits nothing

Exit code 0: it will work; 1: something is wrong; 2: the profile cannot be read.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from ccai_core.errors import CCAIError
from infra.cluster import ClusterConfig, load_cluster
from infra.doctor_checks import Check, good, servers, show
from infra.doctor_jobs import Consultation
from infra.doctor_local import check_base, check_machine, check_storage
from infra.doctor_slurm import check_roles, check_slurm


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a profile; return the exit code."""
    asked = _parser().parse_args(arguments)
    out = Console(highlight=False)
    try:
        cluster = load_cluster(asked.cluster)
        out.print(Text(f"Profile {cluster.name} ({cluster.kind})", style="bold"))
        checks = _examine(cluster, asked, out)
    except CCAIError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"Error: {error}"))
        return 2
    except KeyboardInterrupt:
        out.print("Ended, and its jobs with it.")
        return 130
    return _conclude(checks, asked.dry_run, out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.doctor",
        description="Check a cluster profile: what is wrong, and what to do about it.",
    )
    parser.add_argument("--cluster", default="local", help="name or file of the profile")
    parser.add_argument("--dry-run", action="store_true", help="show the jobs, submit nothing")
    parser.add_argument(
        "--workspace", type=Path, help="where you will work; default: storage, else here"
    )
    parser.add_argument(
        "--wait-minutes", type=float, default=10.0, help="longest wait for the jobs (default 10)"
    )
    return parser


def _examine(cluster: ClusterConfig, asked: argparse.Namespace, out: Console) -> list[Check]:
    found = _before(cluster, asked.workspace, out)
    if any(check.mark == "bad" for check in found):
        return found
    base = asked.workspace or cluster.storage or Path()
    base.mkdir(parents=True, exist_ok=True)
    with Consultation(cluster, base.resolve()) as consultation:
        if asked.dry_run:
            for role, script in consultation.scripts().items():
                out.print(Text(f"\nJob of the role {role}", style="bold"))
                out.print(Text(script.rstrip()), soft_wrap=True)
        if cluster.kind == "slurm":
            accepted = consultation.test_only()
            show("What Slurm says of such jobs", accepted, out)
            found += accepted
        if not asked.dry_run and all(check.mark != "bad" for check in found):
            with _warnings_only(out), out.status("Jobs look around; Ctrl-C ends them"):
                heard = consultation.run(asked.wait_minutes)
            show("What jobs found", heard, out)
            found += heard
    return found


def _before(cluster: ClusterConfig, workspace: Path | None, out: Console) -> list[Check]:
    """Make and show all checks that need no job."""
    if cluster.kind == "local":
        machine = check_machine(cluster)
        show("This machine", machine, out)
        files = check_base(workspace or cluster.storage or Path().resolve())
        show("Files", files, out)
        return machine + files
    # What the commands warn of is among the findings.
    logging.getLogger("infra").addHandler(logging.NullHandler())
    found = check_slurm(cluster)
    show("Slurm", found, out)
    if any(check.mark == "bad" for check in found[:1]):
        return found
    roles = check_roles(cluster)
    show("What the profile asks for", roles, out)
    files = check_storage(cluster, workspace)
    files += _unset_servers()
    show("Files and servers", files, out)
    return found + roles + files


def _unset_servers() -> list[Check]:
    said = {
        "MLflow": "MLflow: no server is set; runs are kept in the workspace",
        "Prefect": "Prefect: no server is set; each command starts its own",
    }
    return [good(text) for name, text in said.items() if name not in servers()]


def _conclude(checks: Sequence[Check], is_dry: bool, out: Console) -> int:
    wrong = sum(check.mark == "bad" for check in checks)
    notes = sum(check.mark == "note" for check in checks)
    if wrong:
        text = f"✗ {wrong} of {len(checks)} checks failed."
    else:
        worth = f", {notes} worth knowing" if notes else ""
        text = f"✓ {len(checks)} checks{worth}, none failed."
    if is_dry:
        text += " Nothing was submitted (--dry-run)."
    out.print(Text(f"\n{text}", style="bold red" if wrong else "bold green"))
    return 1 if wrong else 0


@contextmanager
def _warnings_only(out: Console) -> Iterator[None]:
    """Show what `infra` warns of, not what it does all along."""
    shown = RichHandler(logging.WARNING, out, show_path=False, show_time=False, markup=False)
    log = logging.getLogger("infra")
    log.addHandler(shown)
    try:
        yield
    finally:
        log.removeHandler(shown)


if __name__ == "__main__":
    sys.exit(main())
