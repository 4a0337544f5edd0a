"""Which side a prompt is on, as a pure function of its normalised text.

No list to keep, nothing to leak: the same question, in any source and any run, is always on the
same side, whatever its case, punctuation or spacing. Texts that differ by more, and still ask the
same, are the business of `near_duplicates`: of those a data set keeps one.

    split_of("Is it ever right to lie?", test_fraction=0.5)
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from ccai_core.types import Split

# One fraction for every source: the same text is on the same side wherever it comes from.
TEST_FRACTION = 0.5
VALIDATION_FRACTION = 0.1
_SALT = "ccai-split-v1:"
# A salt of its own: a text that is trained on is beyond the test fraction already, so the same
# hash would put none of them, or all, on the validation side.
_VALIDATION_SALT = "ccai-validation-v1:"
_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Return the text's words only: NFKC, case-folded, punctuation and spacing collapsed."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def split_of(text: str, test_fraction: float = TEST_FRACTION) -> Split:
    """Return the side of a text, for ever the same one.

    'test' for about `test_fraction` of all texts; of the others about a tenth are 'validation':
    their pairs tell how training goes. A text that is 'test' at some fraction stays 'test' at every
    larger one.
    """
    key = normalise(text)
    if _position(_SALT, key) < test_fraction:
        return "test"
    return "validation" if validation_position(key) < VALIDATION_FRACTION else "train"


def validation_position(key: str) -> float:
    """Return a number in [0, 1) for a normalised text; the lowest are held out in training."""
    return _position(_VALIDATION_SALT, key)


def _position(salt: str, key: str) -> float:
    digest = hashlib.sha256((salt + key).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
