"""Which language a text is in, or None where that is not sure: then nothing is dropped for it.

language_of("Est-ce que je dois pardonner à mon frère ?")     # 'fr'
language_of("Why?")                                           # None
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ccai_core.prompts.similarity import is_spaceless
from ccai_core.types import Prompt

# Measured in docs/prompts-cleaning.md: of 3,512 English prompts none was taken for another's.
LEAST_CONFIDENCE = 0.8
LEAST_LETTERS = 20
# A Chinese character says as much as some letters.
_LETTERS_OF_A_CHARACTER = 4
_MOST_READ = 500
# What is longer is no word but a code, a link or a cipher, and in no language.
_LONGEST_WORD = 40
_UNKNOWN = "zxx"
# The tool tells Shanghainese and Cantonese apart from Chinese; prompt sets do not.
_PART_OF = {"wuu": "zh", "yue": "zh"}


def language_of(text: str) -> str | None:
    """Return the ISO 639 code of a text's language; None where that is not sure.

    It is sure with `LEAST_LETTERS` letters (a character of a script without spaces counts as four)
    and `LEAST_CONFIDENCE`.
    """
    text = text[:_MOST_READ]
    if not _has_letters(text):
        return None
    code, confidence = _identifier().classify(text)
    if confidence < LEAST_CONFIDENCE or code == _UNKNOWN:
        return None
    return _PART_OF.get(code, str(code))


def _has_letters(text: str) -> bool:
    """Whether there are `LEAST_LETTERS` letters."""
    found = 0
    if text.isascii():
        for word in text.split():
            if len(word) <= _LONGEST_WORD:
                found += len(word) if word.isalpha() else sum(map(str.isalpha, word))
                if found >= LEAST_LETTERS:
                    return True
        return False
    for character in text:
        if character.isalpha():
            found += _LETTERS_OF_A_CHARACTER if is_spaceless(character) else 1
            if found >= LEAST_LETTERS:
                return True
    return False


def language_of_prompt(prompt: Prompt) -> str | None:
    """Return the language that a prompt's locale names, else that of its text."""
    return language_named(prompt) or language_of(prompt.text)


def language_named(prompt: Prompt) -> str | None:
    """Return the language that a prompt's locale names, if it has one."""
    if not prompt.locale:
        return None
    return prompt.locale.replace("-", "_").partition("_")[0].casefold()


@cache
def known_languages() -> frozenset[str]:
    """Return the codes of all languages that are told apart."""
    return frozenset(_identifier().labels) - {_UNKNOWN, *_PART_OF}


@cache
def _identifier() -> Any:
    # Loaded at the first question: it takes half a second.
    import numpy as np
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    stored = LanguageIdentifier.from_model_file(MODEL_FILE)
    # It computes in float32; with a table in that, a text takes two thirds of the time.
    return LanguageIdentifier(
        stored.nb_ptc.astype(np.float32), stored.nb_pc, stored.nb_classes, stored.tk_nextmove,
        stored.tk_output, norm_probs=True, tk_row=stored.tk_row,
    )  # fmt: skip
