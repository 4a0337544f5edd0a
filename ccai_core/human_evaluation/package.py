"""The package that goes out to reviewers: a zip of pages, and beside it, apart, the key.

made = build_package(prompts, models, DesignConfig(), Path("expert_review_package.zip"),
                     Path("expert_review_key.json"))
"""

from __future__ import annotations

import secrets
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from ccai_core.errors import ArtifactError
from ccai_core.files import whole_file, write_whole
from ccai_core.human_evaluation.answers import ReviewPrompt
from ccai_core.human_evaluation.design import DesignConfig
from ccai_core.human_evaluation.key import ReviewKey
from ccai_core.human_evaluation.page import render_instructions, render_page, shipped_consent
from ccai_core.human_evaluation.sheets import make_sheets

FOLDER = "expert_review"
# When the files were made says nothing of them; one date for all, the first a zip can hold.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


def build_package(
    prompts: Sequence[ReviewPrompt],
    models: Sequence[str],
    config: DesignConfig,
    package: Path,
    key_file: Path,
    *,
    consent: str | None = None,
    contact: str = "",
    excluded: Mapping[str, int] | None = None,
    rng: Random | None = None,
) -> ReviewKey:
    """Write the package and its key, and return the key.

    Args:
        prompts: all that every model answered.
        models: who is compared.
        config: the size of the review.
        package: the zip to write.
        key_file: where the key goes.
        consent: what reviewers agree to, in paragraphs; none: the shipped text.
        contact: whom they can ask, and hand their file to.
        excluded: prompts that cannot be shown, by reason.
        rng: chance; only tests give one. Unset: the system's, which nobody can draw again.

    Raises:
        ArtifactError: a file cannot be written, or there is a key already: without it the pages
            that are out cannot be read.
        ConfigError: there is no prompt.
    """
    if key_file.exists():
        raise ArtifactError(
            f"{key_file} is the key of a package that may be out with reviewers; it is not written "
            "over. Name another folder with --out, or remove it when that review is done with."
        )
    sheets, key = make_sheets(prompts, models, config, rng or secrets.SystemRandom(), excluded)
    pages = {"INSTRUCTIONS.txt": render_instructions(sheets, contact)}
    for sheet in sheets:
        pages[f"review-{sheet.reviewer}.html"] = render_page(
            sheet, consent or shipped_consent(), contact
        )
    # The key first: a package without one would be lost.
    write_whole(key_file, key.model_dump_json(indent=1))
    key_file.chmod(0o600)
    try:
        _write_zip(package, pages)
    except BaseException:
        key_file.unlink()
        raise
    return key


def _write_zip(package: Path, pages: Mapping[str, str]) -> None:
    with whole_file(package) as file, zipfile.ZipFile(file, "w") as archive:
        for name, text in pages.items():
            entry = zipfile.ZipInfo(f"{FOLDER}/{name}", _NO_DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
