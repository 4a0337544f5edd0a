"""What code a run was made with: package versions, git commit, Python and machine.

versions()["trl"]; code_version()
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "ccai-platform", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "pyarrow",
    "prefect", "mlflow", "submitit", "pydantic",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Run from a checkout, our own package need not be installed.
            found[name] = "not installed"
    return found


def code_version() -> str:
    """Return the git commit of this code, with '+changes' when files differ from it."""
    root = Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return "unknown (no git checkout)"
    commit = _git(git, root, "rev-parse", "--short=12", "HEAD")
    changed = _git(git, root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}{'+changes' if changed else ''}" if commit else "unknown (no commit)"


def _git(git: str, root: Path, *arguments: str) -> str:
    # No shell, fixed arguments: nothing from outside reaches the command line.
    answer = subprocess.run(  # noqa: S603
        [git, "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
    )
    return answer.stdout.strip()
