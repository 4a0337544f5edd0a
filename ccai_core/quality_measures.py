"""What can be counted in texts: words, repetition, what is copied, what two texts share.

topic_overlap("Why do cats purr?", "A cat purrs when it is content.")     # 1.0
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from functools import lru_cache

# Scripts written without spaces: each sign counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Vowel signs of Devanagari are marks, which \w leaves out; they belong to the word.
_LETTER = rf"(?:[^\W_{_UNSPACED}]|[\u0900-\u0963])"
_WORD = re.compile(rf"[{_UNSPACED}]|{_LETTER}+(?:['’]{_LETTER}+)?")

# Words that say nothing about the topic: grammar, and what advice of any kind is made of. Measured
# in docs/pairs.md, "off_topic".
_COMMON = frozenset(
    "a about after again all also am an and another any anyone anything are around as ask asked at "
    "back be because been before being best better between both but by can can't cannot come could "
    "day days did do does doesn't doing don't down each else even ever every everyone everything "
    "feel feeling feels few find first for from get gets getting give go going good got great had "
    "has have having he help her here him his how however i i'd i'll i'm i've if in into is isn't "
    "it it's its itself just keep kind know last least let like little long look lot made make "
    "makes making many may me might mine more most much must my myself need needs never new next "
    "no not nothing now of off often oh ok okay old on one ones only or other others our out over "
    "own people person please put quite rather real really right said same say says see seem she "
    "should so some someone something still such sure take tell than thank thanks that that's the "
    "their them then there these they thing things think this those though through time times to "
    "too try two up upon us use used using very want wants was way ways we well were what what's "
    "when where whether which while who whom whose why will with within without won't work would "
    "yes yet you you'd you'll you're you've your yours yourself".split()
)


def words(text: str) -> list[str]:
    """Return a text's words, case-folded; in Chinese and Japanese, its signs."""
    return list(_words(text))


@lru_cache(maxsize=64)  # A candidate's four texts are each looked at many times in turn.
def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def repetition(text: str) -> float:
    """Return the share of three-word sequences that repeat an earlier one."""
    grams = _grams(words(text), 3)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copied(text: str, source: str) -> float:
    """Return the share of `text`'s four-word sequences that stand in `source`."""
    grams, known = _grams(words(text), 4), set(_grams(words(source), 4))
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


def similarity(first: str, second: str) -> float:
    """Return how much of two texts is the same words in the same order, from 0 to 1."""
    return _matcher(first, second).ratio()


def is_similar(first: str, second: str, above: float) -> bool:
    """Whether the similarity of two texts is above a limit; fast where it is far below."""
    matcher = _matcher(first, second)
    # Each is an upper bound of the next, and takes a tenth of its time.
    bounds = matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio
    return all(bound() > above for bound in bounds)


def _matcher(first: str, second: str) -> SequenceMatcher[str]:
    # Word sequences instead of characters: 5 times faster, and blind to spacing and case.
    return SequenceMatcher(None, words(first), words(second), autojunk=False)


def topic_overlap(prompt: str, answer: str) -> float:
    """Return the share of the prompt's content words (by five-letter stem) that the answer uses."""
    asked = {_stem(word) for word in words(prompt) if _has_content(word)}
    said = {_stem(word) for word in words(answer)}
    return len(asked & said) / len(asked) if asked else 1.0


def _has_content(word: str) -> bool:
    if len(word) == 1:
        return not word.isascii() and word.isalpha()
    return len(word) > 2 and word.replace("’", "'") not in _COMMON


def _stem(word: str) -> str:
    return word[:5]


def _grams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
