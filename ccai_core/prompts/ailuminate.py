"""AILuminate prompt files as MLCommons ships them. Their content is harmful by design.

prompts = filter_contemplative_relevance(load_ailuminate_demo(path))
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from ccai_core.embedded import cache_directory
from ccai_core.errors import DataError
from ccai_core.prompts.files import make_prompt, read_csv, unique
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
DEMO_FILE = "airr_official_1.0_demo_en_us_prompt_set_release.csv"
DEMO_URL = f"https://raw.githubusercontent.com/mlcommons/ailuminate/main/{DEMO_FILE}"
DEMO_SHA256 = "63e2b654325c5405096fabf28ef5f057b0ad674904b1839fd1f52b523e324d02"

# Hazards in which a wise answer has more to do than to decline: somebody suffers, sides are taken,
# or a person decides in a hurry. Each names the principle that it calls for most.
RELEVANT_HAZARDS = {
    "ssh": "boundless_care",
    "hte": "non_duality",
    "spc": "mindfulness",
    "vcr": "boundless_care",
    "prv": "non_duality",
    "dfm": "mindfulness",
}
_CUES = {
    "emptiness": r"always|never|must|only way|truth|proof|certain|identity|destin|meant to",
    "non_duality": r"they|those people|enem|versus|against|race|religio|immigrant|gender|group",
    "boundless_care": r"suffer|hurt|pain|child|kid|animal|alone|die|dying|grie|help|family|elder",
    "mindfulness": r"angry|anger|revenge|hate|tired|stress|panic|urge|right now|cannot stop|drunk",
}
_CUE_PATTERNS = {
    name: re.compile(rf"\b(?:{words})", re.IGNORECASE) for name, words in _CUES.items()
}


def is_ailuminate(header: Sequence[str]) -> bool:
    """Whether a CSV header is AILuminate's, in either spelling."""
    return {"prompt_text", "hazard"} <= {name.strip().casefold() for name in header}


def load_ailuminate_demo(path: Path) -> list[Prompt]:
    """Read an AILuminate CSV; `spc_*` sub-hazards become spc with the rest as a tag.

    Raises:
        DataError: wrong header, unknown hazard, bad prompt, duplicate id; file and line.
    """
    header, rows = read_csv(path)
    missing = [name for name in COLUMNS[:3] if name not in header]
    if missing:
        raise DataError(
            f"{path} line 1: column {missing[0]!r} is missing. An AILuminate file begins with "
            f"{','.join(COLUMNS)}; found {','.join(header)[:200] or 'nothing'}."
        )
    prompts = []
    for row, line in rows:
        where = f"{path} line {line}"
        hazard, _, rest = row["hazard"].strip().casefold().partition("_")
        if hazard not in HAZARDS:
            raise DataError(f"{where}: unknown hazard {hazard!r}; valid: {', '.join(HAZARDS)}.")
        prompts.append(
            make_prompt(
                row["prompt_text"],
                where,
                id=row["release_prompt_id"] or f"{path.stem}-{line}",
                source="ailuminate-demo" if "demo" in path.name else "ailuminate",
                hazard=hazard,
                persona=row.get("persona") or None,
                tags=tuple(filter(None, [rest])),
            )
        )
    if not prompts:
        raise DataError(f"{path}: has a header but no prompts.")
    return unique(prompts, path)


def contemplative_relevance(prompt: Prompt) -> float:
    """Score how much a prompt calls for the principles: 1 for its hazard, 0.5 a kind of cue."""
    cues = sum(bool(pattern.search(prompt.text)) for pattern in _CUE_PATTERNS.values())
    return (prompt.hazard in RELEVANT_HAZARDS) + 0.5 * cues


def filter_contemplative_relevance(
    prompts: Sequence[Prompt], threshold: float = 1.5
) -> list[Prompt]:
    """Keep the prompts whose relevance reaches `threshold`, in their order."""
    return [p for p in prompts if contemplative_relevance(p) >= threshold]


def fetch_ailuminate_demo() -> Path:
    """Return the demo set (CC-BY-4.0, MLCommons), downloaded once and checked by sha256.

    Raises:
        DataError: it cannot be downloaded or is not the file we know; says what to do instead.
    """
    target = cache_directory() / "data" / DEMO_FILE
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == DEMO_SHA256:
        return target
    way_out = f"Download {DEMO_URL} on a connected machine and give it with --prompts FILE."
    try:
        with urllib.request.urlopen(DEMO_URL, timeout=10) as answer:
            data = answer.read(10_000_000)
    except (OSError, HTTPException) as error:
        raise DataError(f"The AILuminate demo set cannot be fetched ({error}). {way_out}") from None
    if hashlib.sha256(data).hexdigest() != DEMO_SHA256:
        raise DataError(f"What {DEMO_URL} answered is not the known file (sha256). {way_out}")
    part = target.with_suffix(f".{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}). {way_out}") from None
    return target
