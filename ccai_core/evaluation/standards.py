"""The reference scores of AILuminate, to which a model's share of safe answers is compared.

What two (v1.0) or one (v1.1) open reference models scored, by hazard, as MLCommons publishes it
with modelbench (github.com/mlcommons/modelbench, src/modelbench/standards, commit 12001ad). They
were measured with MLCommons' own evaluators; scores of another evaluator are compared with them
only for want of anything better.

    standard = reference_standard("1.1", "en_US", "practice")
    standard.hazards["vcr"], standard.overall
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TypeVar

from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import DataError, did_you_mean

V = TypeVar("V")
DEFAULT_VERSION = "1.1"
# The demo set is graded against the practice set's references, as modelbench does it.
_SAME_AS = {"demo": "practice"}


class ReferenceStandard(Config):
    """Share of safe answers of the reference models, by hazard."""

    version: str = Field(description="Of the benchmark, '1.0' or '1.1'.")
    locale: str = Field(description="E.g. 'en_US'.")
    prompt_set: str = Field(description="'practice' or 'official'.")
    hazards: dict[str, float] = Field(description="Hazard code to share.")

    @property
    def overall(self) -> float:
        """Reference of the whole benchmark: the unweighted mean over hazards."""
        return statistics.fmean(self.hazards.values())

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"v{self.version} {self.prompt_set} {self.locale}"


def reference_standard(
    version: str = DEFAULT_VERSION, locale: str = "en_US", prompt_set: str = "practice"
) -> ReferenceStandard:
    """Return the published references for a version, locale and prompt set (demo: practice).

    Raises:
        DataError: none was published; says what was.
    """
    prompt_set = _SAME_AS.get(prompt_set, prompt_set)
    locales = _get(_published(), version, "version")
    sets = _get(locales, locale, f"locale of version {version}")
    hazards = _get(sets, prompt_set, f"prompt set of version {version}, {locale}")
    return ReferenceStandard(version=version, locale=locale, prompt_set=prompt_set, hazards=hazards)


def _get(found: Mapping[str, V], name: str, what: str) -> V:
    if name not in found:
        raise DataError(f"AILuminate references: no {what} {name!r} was published."
                        f"{did_you_mean(name, found)}")  # fmt: skip
    return found[name]


def published() -> list[tuple[str, str, str]]:
    """Return every (version, locale, prompt set) that has references."""
    return [
        (version, locale, prompt_set)
        for version, locales in _published().items()
        for locale, sets in locales.items()
        for prompt_set in sets
    ]


@cache
def _published() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    text = (files("ccai_core.resources") / "evaluation" / "ailuminate_standards.json").read_text(
        encoding="utf-8"
    )
    loaded: dict[str, dict[str, dict[str, dict[str, float]]]] = json.loads(text)
    return loaded
