"""AILuminate prompt files as MLCommons ships them. Their content is harmful by design.

reading = read_prompts(table, ailuminate_prompts(table, path, "ailuminate-demo", restricted=False))
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ccai_core.errors import DataError
from ccai_core.prompts.reading import Make, RowError, make_prompt
from ccai_core.prompts.rows import Row, Table, stem_of
from ccai_core.types import Prompt

HAZARDS = {
    "cse": "Child sexual exploitation",
    "dfm": "Defamation",
    "hte": "Hate",
    "ipv": "Intellectual property",
    "iwp": "Indiscriminate weapons",
    "ncr": "Non-violent crimes",
    "prv": "Privacy",
    "spc": "Specialised advice",
    "src": "Sex-related crimes",
    "ssh": "Suicide and self-harm",
    "sxc": "Sexual content",
    "vcr": "Violent crimes",
}
COLUMNS = ("release_prompt_id", "prompt_text", "hazard", "persona", "locale", "prompt_hash")
PERSONAS = ("normal", "skilled", "unskilled")
_LOCALE = re.compile(r"([a-z]{2,3})(?:[-_]([a-z]{2,4}))?", re.IGNORECASE)


def is_ailuminate(columns: Collection[str]) -> bool:
    """Whether a file's columns (in lower case) are AILuminate's."""
    return {"prompt_text", "hazard"} <= set(columns)


def source_of(path: Path) -> str:
    """Return which AILuminate source a file is by MLCommons' way of naming its files.

    A name that does not tell gives 'ailuminate', which is treated like a members-only set.
    """
    name = path.name.casefold()
    if "demo" in name:
        return "ailuminate-demo-fr" if "fr_fr" in name else "ailuminate-demo"
    if "practice" in name:
        return "ailuminate-practice"
    return "ailuminate-official" if "official" in name or "heldout" in name else "ailuminate"


def ailuminate_prompts(table: Table, path: Path, source: str, *, restricted: bool) -> Make:
    """Return what makes a Prompt of a row.

    The sub-hazard is a tag ('hlt' of `spc_hlt`), and so is the prompt's hash
    ('prompt_hash:0467…'), by which MLCommons knows a prompt in every release.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in COLUMNS[:3] if name not in table.columns]
    if missing:
        raise DataError(
            f"{path} line 1: column {missing[0]!r} is missing. An AILuminate file begins with "
            f"{','.join(COLUMNS)}; found {','.join(table.columns)[:200] or 'nothing'}."
        )
    stem = stem_of(path)

    def make(row: Row) -> Prompt:
        values = {name: str(row.values.get(name) or "").strip() for name in COLUMNS}
        hazard, _, rest = values["hazard"].casefold().partition("_")
        persona = values["persona"].casefold()
        digest = values["prompt_hash"]
        _one_of(hazard, HAZARDS, "hazard", row)
        if persona:
            _one_of(persona, PERSONAS, "persona", row)
        return make_prompt(
            values["prompt_text"],
            row.where,
            id=values["release_prompt_id"] or f"{stem}-{row.number}",
            source=source,
            hazard=hazard,
            persona=persona or None,
            locale=locale_of(values["locale"], row.where),
            tags=(*filter(None, [rest]), *([f"prompt_hash:{digest}"] if digest else [])),
            restricted=restricted,
        )

    return make


def locale_of(text: str, where: str) -> str | None:
    """Return a locale as AILuminate writes it: 'en_US' for 'EN-us'; None for ''.

    Raises:
        RowError: it is no locale.
    """
    if not text:
        return None
    found = _LOCALE.fullmatch(text)
    if not found:
        detail = f"{text[:20]!r} is no locale; write it like en_US, fr_FR, zh_CN or hi_IN."
        raise RowError(where, "unknown locale", detail)
    language, country = found.groups()
    return f"{language.lower()}_{country.upper()}" if country else language.lower()


def _one_of(value: str, valid: Collection[str], name: str, row: Row) -> None:
    if value not in valid:
        detail = f"unknown {name} {value[:20]!r}; valid: {', '.join(valid)}."
        raise RowError(row.where, f"unknown {name}", detail)
