"""The draft as LaTeX and PDF by pandoc, where it is installed.

made, why_not = convert(folder / "paper.md")
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ccai_core.errors import ArtifactError

# The ways to a PDF that pandoc knows, the ones that need nothing else first.
_PDF_ENGINES = ("tectonic", "xelatex", "lualatex", "typst", "weasyprint", "wkhtmltopdf")
# Text of data is text: no mathematics, no TeX, no citations.
_FROM = "markdown-tex_math_dollars-raw_tex-raw_attribute-citations-superscript-subscript"
_SECONDS = 300


def convert(paper: Path) -> tuple[dict[str, Path], list[str]]:
    """Make what can be made beside the draft; returns the files, and what was not made and why.

    Raises:
        ArtifactError: pandoc cannot read the draft, or cannot write beside it.
    """
    pandoc = shutil.which("pandoc")
    if pandoc is None:
        return {}, ["No LaTeX and no PDF: pandoc is not installed."]
    made = {"latex": _run(pandoc, paper, "tex")}
    engine = next((name for name in _PDF_ENGINES if shutil.which(name)), None)
    if engine is None:
        return made, [f"No PDF: none of {', '.join(_PDF_ENGINES)} is installed."]
    if list((paper.parent / "figures").glob("*.svg")) and not shutil.which("rsvg-convert"):
        return made, ["No PDF: its pictures are SVG, for which pandoc needs rsvg-convert."]
    made["pdf"] = _run(pandoc, paper, "pdf", f"--pdf-engine={engine}")
    return made, []


def _run(pandoc: str, paper: Path, suffix: str, *more: str) -> Path:
    target = paper.with_suffix(f".{suffix}")
    # No shell: the draft is a file that pandoc reads.
    done = subprocess.run(  # noqa: S603
        [
            pandoc, "--standalone", "--shift-heading-level-by=-1", f"--from={_FROM}",
            f"--output={target.name}", *more, paper.name,
        ],
        cwd=paper.parent, capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise ArtifactError(f"{target}: pandoc cannot make it: {last[0]}")
    return target
