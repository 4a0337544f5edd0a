"""Prompts fit to be asked: tidy, inert, in a known language, each question once.

Nothing is lost silently: a prompt is kept, or dropped for one reason, the first that holds in the
order of `REASONS`. Of texts that ask nearly the same the first is kept, so the order of the sources
is their rank.

    cleaned = clean(prompts, CleaningConfig(languages=("en",)))
    cleaned.dropped[0]      # Dropped(id='hh-17', source='hh-rlhf', reason='duplicate', detail=…)
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from pydantic import Field, field_validator

from ccai_core.config import Config
from ccai_core.control_tokens import neutralise
from ccai_core.errors import did_you_mean
from ccai_core.prompts.language import known_languages, language_of_prompt
from ccai_core.prompts.near_duplicates import THRESHOLD, NearDuplicates
from ccai_core.prompts.pii import PII_KINDS, PiiKind, PiiReport, pii_kinds
from ccai_core.prompts.reading import MOST_CHARACTERS
from ccai_core.prompts.registry import SOURCES
from ccai_core.prompts.splits import split_of
from ccai_core.types import Message, Prompt

DropReason = Literal["empty", "too_long", "language", "pii", "duplicate", "near_duplicate"]
REASONS: Mapping[DropReason, str] = {
    "empty": "No text is left",
    "too_long": "More characters than allowed, earlier turns included",
    "language": "In a language that was not asked for",
    "pii": "Holds personal data, which the settings leave out",
    "duplicate": "The same words as another prompt",
    "near_duplicate": "Asks nearly the same as another prompt",
}
Change = Literal["characters", "control_tokens"]
CHANGES: tuple[Change, ...] = get_args(Change)
UNSURE = "unsure"

# Invisible, and with no part in any word: zero-width spaces, soft hyphens, marks of direction, byte
# order marks, fillers.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]"
)
# Joiners shape Hindi and Persian words, and emoji; after anything else they only hide.
_JOINER = re.compile("(?<![\u0600-\u07ff\u0900-\u0dff\u2190-\U0010ffff])[\u200c\u200d]")
# Tags spell the flags of Scotland and Wales; else they can hide a whole English sentence. So can
# selectors of a variant that stand in a row, or after what has no variants.
_TAG = re.compile("(\U0001f3f4[\U000e0030-\U000e007a]{2,6}\U000e007f)|[\U000e0000-\U000e007f]")
_SELECTOR = re.compile(
    '(?<=[\ufe00-\ufe0f\U000e0100-\U000e01ef!"$-)+-/:-\x7f])[\ufe00-\ufe0f\U000e0100-\U000e01ef]'
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LINE_END = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_ODD_SPACE = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_EMPTY_LINES = re.compile(r"\n{3,}")


class CleaningConfig(Config):
    """What is kept; see docs/prompts-cleaning.md for what the defaults did to real prompts."""

    max_characters: int = Field(
        MOST_CHARACTERS, ge=1, description="Most characters of a prompt, earlier turns included."
    )
    languages: tuple[str, ...] = Field(
        (), description="Codes such as en, fr, zh, hi; a prompt surely in another one is dropped."
    )
    near_duplicates: bool = Field(
        True, description="Keep one of several prompts that ask nearly the same."
    )
    similarity: float = Field(
        THRESHOLD, ge=0.5, le=1, description="From which similarity on prompts are near-duplicates."
    )
    drop_pii: bool = Field(False, description="Drop prompts with personal data, not only count.")

    @field_validator("languages")
    @classmethod
    def _are_known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            if code not in known_languages():
                raise ValueError(
                    f"language {code!r} is not known.{did_you_mean(code, known_languages())} "
                    "Give ISO 639 codes, such as en, fr, zh, hi"
                )
        return codes


class Dropped(Config):
    """A prompt that was not kept. Says nothing of its text."""

    id: str = Field(description="Prompt.id.")
    source: str = Field(description="Prompt.source.")
    reason: str = Field(description="The first that holds; of cleaning, one of `REASONS`.")
    detail: str = Field("", description="How long, which language, or what it repeats.")


class Changed(Config):
    """A prompt that was kept with another text."""

    id: str = Field(description="Prompt.id.")
    source: str = Field(description="Prompt.source.")
    changes: tuple[Change, ...] = Field(
        description="Whether characters were tidied, or control tokens made inert."
    )


class Cleaned(Config):
    """What cleaning kept, dropped, changed and found."""

    prompts: tuple[Prompt, ...] = Field(description="The prompts that are kept, in their order.")
    dropped: tuple[Dropped, ...] = Field(description="The others, in their order.")
    changed: tuple[Changed, ...] = Field(description="Kept prompts whose text was changed.")
    languages: Mapping[str, int] = Field(
        description="Kept prompts by language; 'unsure' where the text is too short to tell."
    )
    pii: PiiReport = Field(description="Kept prompts that hold personal data.")

    @property
    def reasons(self) -> dict[DropReason, int]:
        """How many prompts were dropped for each reason."""
        counts = Counter(dropped.reason for dropped in self.dropped)
        return {reason: counts[reason] for reason in REASONS}

    @property
    def changes(self) -> dict[Change, int]:
        """How many kept prompts were changed in each way."""
        counts = Counter(change for changed in self.changed for change in changed.changes)
        return {change: counts[change] for change in CHANGES}


def clean(prompts: Iterable[Prompt], config: CleaningConfig | None = None) -> Cleaned:
    """Clean prompts one after the other, and keep the first of those that ask the same."""
    cleaner = _Cleaner(config or CleaningConfig())
    for prompt in prompts:
        cleaner.take(prompt)
    return cleaner.result()


def tidy(text: str) -> str:
    """Return a text with one kind of space and line end, nothing invisible, in NFC.

    What it says is unchanged: no letters are folded, and line breaks and indentation stay.
    """
    text = _CONTROL.sub("", _SURROGATE.sub("\ufffd", _LINE_END.sub("\n", text)))
    text = _TAG.sub(r"\1", _INVISIBLE.sub("", text))
    text = _SELECTOR.sub("", _JOINER.sub("", text))
    text = _ODD_SPACE.sub(" ", unicodedata.normalize("NFC", text))
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return _EMPTY_LINES.sub("\n\n", text).strip()


def asked(turns: Iterable[Message]) -> str:
    """Return what a conversation is compared by: all that the user said in it."""
    return "\n".join(turn.content for turn in turns if turn.role == "user")


class _Cleaner:
    """What has been kept so far, and why the rest was not."""

    def __init__(self, config: CleaningConfig) -> None:
        self._config = config
        self._kept: list[Prompt] = []
        self._dropped: list[Dropped] = []
        self._changed: list[Changed] = []
        self._languages: Counter[str] = Counter()
        self._pii: dict[PiiKind, list[str]] = defaultdict(list)
        # Nothing reaches a threshold above 1 but the same words, which are always found.
        self._seen = NearDuplicates(config.similarity if config.near_duplicates else math.inf)

    def take(self, given: Prompt) -> None:
        prompt, changes = _made_fit(given)
        if why := self._unfit(prompt):
            return self._drop(prompt, *why)
        language = language_of_prompt(prompt)
        pii = pii_kinds(asked(prompt.turns), _region(prompt))
        if why := self._unwanted(language, pii) or self._repeated(prompt):
            return self._drop(prompt, *why)
        self._kept.append(prompt)
        if changes:
            self._changed.append(Changed(id=prompt.id, source=prompt.source, changes=changes))
        self._languages[language or UNSURE] += 1
        for kind in pii:
            self._pii[kind].append(prompt.id)
        return None

    def result(self) -> Cleaned:
        return Cleaned(
            prompts=tuple(self._kept),
            dropped=tuple(self._dropped),
            changed=tuple(self._changed),
            languages=dict(sorted(self._languages.items())),
            pii=PiiReport(prompts={kind: tuple(self._pii[kind]) for kind in PII_KINDS}),
        )

    def _drop(self, prompt: Prompt, reason: DropReason, detail: str) -> None:
        self._dropped.append(
            Dropped(id=prompt.id, source=prompt.source, reason=reason, detail=detail)
        )

    def _unfit(self, prompt: Prompt) -> tuple[DropReason, str] | None:
        if not prompt.text:
            return "empty", ""
        length = sum(len(turn.content) for turn in prompt.turns)
        if length > self._config.max_characters:
            return "too_long", f"{length} characters; most {self._config.max_characters}"
        return None

    def _unwanted(
        self, language: str | None, pii: tuple[PiiKind, ...]
    ) -> tuple[DropReason, str] | None:
        if language and self._config.languages and language not in self._config.languages:
            return "language", language
        if pii and self._config.drop_pii:
            return "pii", ", ".join(pii)
        return None

    def _repeated(self, prompt: Prompt) -> tuple[DropReason, str] | None:
        match = self._seen.add(str(len(self._kept)), asked(prompt.turns))
        if match is None:
            return None
        first = self._kept[int(match.key)]
        name = f"{first.id} of {first.source}"
        if match.exact:
            return "duplicate", name
        return "near_duplicate", f"{name}, {match.similarity:.2f}"


def _made_fit(prompt: Prompt) -> tuple[Prompt, tuple[Change, ...]]:
    """Return a prompt tidy and inert, with its side, and what had to be changed for it."""
    turns = [turn.content for turn in prompt.turns]
    tidied = [tidy(text) for text in turns]
    # Only now: an invisible character in a control token hides it from a search.
    inert = [neutralise(text) for text in tidied]
    if inert == turns:
        return prompt, ()
    differ: dict[Change, bool] = {"characters": tidied != turns, "control_tokens": inert != tidied}
    changes = tuple(change for change in CHANGES if differ[change])
    context = tuple(
        Message(role=turn.role, content=text)
        for turn, text in zip(prompt.context, inert[:-1], strict=True)
    )
    # The side follows from the text: a word that was cut by something invisible is whole now. What
    # is only for evaluation, whatever its words, stays so.
    info = SOURCES.get(prompt.source)
    own = (info and info.evaluation_only) or prompt.split != split_of(prompt.text)
    side = prompt.split if own else split_of(inert[-1])
    fit = {"text": inert[-1], "context": context, "split": side}
    return prompt.model_copy(update=fit), changes


def _region(prompt: Prompt) -> str:
    """Return the country whose telephone numbers a prompt may hold without their country code."""
    return (prompt.locale or "").replace("-", "_").partition("_")[2].upper() or "US"
