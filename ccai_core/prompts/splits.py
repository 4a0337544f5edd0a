"""Which side a prompt is on, as a pure function of its normalised text.

No list to keep, nothing to leak: the same question, in any source and any run, is always on the
same side, whatever its case, punctuation or spacing.

    split_of("Is it ever right to lie?", test_fraction=0.5)
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from ccai_core.types import Split

# One fraction for every source: the same text is on the same side wherever it comes from.
TEST_FRACTION = 0.5
_SALT = "ccai-split-v1:"
_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Return the text's words only: NFKC, case-folded, punctuation and spacing collapsed."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def split_of(text: str, test_fraction: float = TEST_FRACTION) -> Split:
    """Return 'test' for about `test_fraction` of all texts, for ever the same ones.

    A text that is 'test' at some fraction stays 'test' at every larger one.
    """
    digest = hashlib.sha256((_SALT + normalise(text)).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if position < test_fraction else "train"
