"""What can be counted in texts: words, repetition, what is copied, what two texts share.

topic_overlap("Why do cats purr?", "A cat purrs when it is content.")     # 1.0
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from operator import itemgetter

# Scripts written without spaces: each sign counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Vowel signs of Devanagari are marks, which \w leaves out; they belong to the word.
_LETTERS = rf"(?:[^\W_{_UNSPACED}]++|[\u0900-\u0963]++)++"
_WORD = re.compile(rf"[{_UNSPACED}]|{_LETTERS}(?:['’]{_LETTERS})?")
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)?")

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


# A candidate's four texts are each looked at many times in turn, and its prompt and response again
# with the next candidate: hence this cache and those below.
@lru_cache(maxsize=64)
def words(text: str) -> tuple[str, ...]:
    """Return a text's words, case-folded; in Chinese and Japanese, its signs."""
    folded = text.casefold()
    return tuple((_ASCII_WORD if folded.isascii() else _WORD).findall(folded))


def lowered(text: str) -> str:
    """Return a text in lower case; a pattern in lower case finds there what it would ignoring case.

    It takes a part of the time of a pattern that ignores case. No text gets longer or shorter.
    """
    if not text.isascii():
        # All that such a pattern takes for a letter a to z, and that lower() leaves or makes two.
        text = text.replace("İ", "i").replace("ı", "i").replace("ſ", "s")
    return text.lower()


def repetition(text: str) -> float:
    """Return the share of three-word sequences that repeat an earlier one."""
    grams = _grams(words(text), 3)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copied(text: str, source: str) -> float:
    """Return the share of `text`'s four-word sequences that stand in `source`."""
    grams, known = _fours(text)[0], _fours(source)[1]
    return sum(map(known.__contains__, grams)) / len(grams) if grams else 0.0


@lru_cache(maxsize=64)
def _fours(text: str) -> tuple[list[tuple[str, ...]], frozenset[tuple[str, ...]]]:
    grams = _grams(words(text), 4)
    return grams, frozenset(grams)


def similarity(first: str, second: str) -> float:
    """Return how much of two texts is the same words in the same order, from 0 to 1."""
    # Word sequences instead of characters: 5 times faster, and blind to spacing and case.
    return SequenceMatcher(None, words(first), words(second), autojunk=False).ratio()


def is_similar(first: str, second: str, above: float) -> bool:
    """Whether the similarity of two texts is above a limit; fast where it is far below."""
    # As SequenceMatcher.quick_ratio, an upper bound, in a tenth of its time.
    ours, theirs = _counts(first), _counts(second)
    both = sum(min(count, theirs[word]) for word, count in ours.items() if word in theirs)
    length = len(words(first)) + len(words(second))
    bound = 2.0 * both / length if length else 1.0
    return bound > above and similarity(first, second) > above


@lru_cache(maxsize=64)
def _counts(text: str) -> Counter[str]:
    return Counter(words(text))


def topic_overlap(prompt: str, answer: str) -> float:
    """Return the share of the prompt's content words (by five-letter stem) that the answer uses."""
    asked = _topic(prompt)
    said = set(map(_stem, words(answer)))
    return len(asked & said) / len(asked) if asked else 1.0


@lru_cache(maxsize=64)
def _topic(prompt: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in words(prompt) if _has_content(word))


def _has_content(word: str) -> bool:
    if len(word) == 1:
        return not word.isascii() and word.isalpha()
    return len(word) > 2 and word.replace("’", "'") not in _COMMON


_stem = itemgetter(slice(5))


def _grams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
