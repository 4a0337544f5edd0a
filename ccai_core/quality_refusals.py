"""Does an answer decline to help? By its opening words, in English, French, Chinese and Hindi.

A pair in which only one answer declines teaches declining before anything else, so the filters
look at which of the two it is.

    declines("I'm sorry, but I can't help with that.")      # True
"""

from __future__ import annotations

import re
from functools import lru_cache

from ccai_core.quality_measures import lowered

# Answers decline at their beginning; what is said later ("you cannot undo it") is mostly advice.
_OPENING = 240
# Words that an answer puts into somebody's mouth ("tell him: 'I cannot help you'") decline nothing.
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»|「[^」]*」')

# English: I … cannot … help. Few words stand between, or "I cannot stress enough how much this
# helps" would decline.
_AM = r"(?:\s+am|['’]m)"
_ADVERBS = r"(?:\s+(?:really|simply|also|just|do|am\s+afraid|unfortunately|definitely|absolutely))*"
_CANNOT = "|".join(
    (
        r"\s+(?:can(?:\s*not|['’]?t)|could(?:\s+not|n['’]?t)|do(?:\s+not|n['’]?t))",
        r"\s+(?:will\s+not|won['’]?t|would(?:\s+not|n['’]?t)|have\s+no\s+way\s+to)",
        rf"{_AM}\s+(?:unable|not\s+(?:able|going|willing|allowed|comfortable|prepared))"
        r"(?:\s+(?:to|with))?",
    )
)
_BETWEEN = (
    r"(?:\W+(?:in\s+good\s+conscience|ethically|morally|even|ever|really|directly|possibly|"
    r"be\s+able\s+to|feel\s+comfortable|want\s+to|"
    r"have\s+(?:the|an?)\s+(?:ability|capability|capacity|permission)\s+to)){0,2}\W+"
)
_HELP = (
    r"(?:help\w*|assist\w*|support\w*|provid\w*|giv(?:e|ing)|answer\w*|respond\w*|comply\w*|"
    r"do\s+(?:that|this|it)|tell\w*|shar(?:e|ing)|advis\w*|offer\w*|teach\w*|fulfil\w*|engag\w*|"
    r"participat\w*|edit\w*|access|take\s+part|discuss\w*|writ(?:e|ing)|creat(?:e|ing)|generat(?:e|ing)|"
    r"mak(?:e|ing)\s+(?:that|this|jokes?)|suggest\s+that|condone|promote|go\s+along)\b"
)
_DO_NOT = r"(?:can(?:not|['’]?t)|will\s+not|won['’]?t|must|am\s+(?:unable|not)|do\s+not|don['’]?t)"
_ENGLISH = "|".join(
    (
        rf"\b(?:i|we){_ADVERBS}(?:{_CANNOT}){_BETWEEN}{_HELP}",
        r"\bi(?:\s+(?:must|have\s+to|need\s+to|will|would\s+rather)|['’]ll)\s+(?:respectfully\s+)?"
        r"(?:decline|refuse|say\s+no|pass\s+on)\b",
        r"\bi\s+(?:decline|refuse)\s+to\b",
        rf"\bsorry,?\s+but\s+i(?:\s+{_DO_NOT}|['’]m\s+(?:unable|not))\b",
    )
)
_FRENCH = "|".join(
    (
        r"\bje\s+ne\s+(?:peux|puis|pourrai|pourrais|veux|vais|souhaite|saurais)\s+pas(?:\W+\w+){0,4}?"
        r"\W+(?:aider|fournir|répondre|donner|assister|partager|expliquer|écrire|conseiller|dire|"
        r"faire\s+(?:cela|ça)|proposer|encourager|accéder|générer|discuter|participer)\b",
        r"\bje\s+(?:refuse|décline|dois\s+(?:refuser|décliner))\b",
        r"\b(?:désolée?|regrette),?\s+mais\s+je\s+ne\b",
    )
)
_FRENCH_IMPOSSIBLE = r"\bil\s+m['’]est\s+impossible\b"
_CHINESE = "|".join(
    (
        r"我(?:们)?(?:真的|恐怕)?(?:不能|无法|没办法|不会|不可以|不便|拒绝)[^。，！？]{0,12}?"
        r"(?:帮|协助|提供|回答|满足|支持|给出|参与|讨论|告诉|分享|生成|这样做)",
        r"(?:抱歉|对不起|很遗憾)[，,！!]?\s*(?:但|不过)?(?:是)?我[^。！？]{0,6}?(?:不能|无法|没办法|不会)",
    )
)
_HINDI = "|".join(
    (
        r"मैं[^।?!]{0,60}?(?:मदद|सहायता|जानकारी|उत्तर|जवाब|सलाह|प्रदान|बता|समर्थन)[^।?!]{0,24}?"
        r"नहीं\s+(?:कर|दे|बता|हो)",
        r"(?:क्षमा\s+करें|माफ़?\s+करें|खेद\s+है)[^।?!]{0,60}?नहीं",
    )
)
# Each with a word that stands in all it finds, None: there is no one such word. A text without it
# need not be searched.
_DECLINES = (
    (None, re.compile(_ENGLISH)),
    ("je", re.compile(_FRENCH)),
    ("impossible", re.compile(_FRENCH_IMPOSSIBLE)),
    ("我", re.compile(_CHINESE)),
    ("नहीं", re.compile(_HINDI)),
)


@lru_cache(maxsize=64)  # A response is looked at once with each of its revisions.
def declines(answer: str) -> bool:
    """Whether an answer says at its beginning that it will not, or cannot, do what was asked."""
    opening = lowered(_QUOTED.sub(" ", answer)[:_OPENING])
    return any(
        (word is None or word in opening) and pattern.search(opening) for word, pattern in _DECLINES
    )
