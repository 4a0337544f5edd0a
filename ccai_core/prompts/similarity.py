"""How alike two questions are: the weight of the words that one of them lacks.

Order, case, punctuation and courtesy do not count; small words count little; a misspelt word counts
a third of another word; another number makes another question. Made for questions of a few words,
where one word is the whole difference ("How do I bake bread?", "How do I bake cakes?").

    similarity(bag_of("Please, how do I bake bread?"), bag_of("how do I bake braed"))    # 0.87
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import pairwise

# A word of these says little of what is asked, and is the first to change when it is asked again.
# English, French, Hindi and Chinese: the languages of AILuminate. In others all words count alike.
_SMALL = frozenset(
    "a about after all also am an and any are as assistant at be because been before being best "
    "but by can cannot cant could couldnt did didnt do does doesnt doing dont down explain for "
    "from had has have having he her here hers him his how i id if ill im in into is isnt it its "
    "ive just know like lot many may me might more most much must my need no not of off on one "
    "only or other our out over own question really should shouldnt so some someone something "
    "such tell than that thats the their them then there these they thing things think this those "
    "to too up us very want was way ways we were what whats when where which while who whos why "
    "will with without wont would wouldnt you your youre "
    "au aux avec ce ces cet cette comment dans de des du elle elles en est et être faire fait il "
    "ils je la le les leur leurs lui ma mais mes moi mon ne nous on ont ou où par pas plus pour "
    "pourquoi puis quand que quel quelle quelles quels qui quoi sa se ses si son sont sur ta te "
    "tes toi ton tu un une vos votre vous y à ça meilleure façon "
    "का की के को में से है हैं था थी थे हो और या यह वह ये वे मैं हम आप तुम मुझे मेरा मेरी मेरे अपना अपनी अपने "
    "क्या कैसे क्यों कब कहाँ कौन कौन सा सी पर तो ही भी एक इस उस जो कि लिए करें करना करने कर सकता सकती सकते "
    "हूँ हूं बताएं बताइए चाहिए नहीं ने".split()
)
_COURTESY = frozenset(
    "please pls plz kindly hi hello hey dear thanks thank thx sir madam bonjour salut merci svp "
    "stp plaît कृपया नमस्ते धन्यवाद 请 您 谢谢 你好".split()
)
_SMALL_CHARACTERS = frozenset(
    "的了吗呢是我你他她它们在有和与就都也不怎么样如何什为哪谁请您要能会可以该个一这那吧啊得地着"
)
# Han, kana, hangul, Thai, Lao, Khmer, Burmese: written without spaces, or with few.
_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Vowel signs are no letters to `re`, which would cut Hindi words into consonants.
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_TOKEN = re.compile(rf"[{_SPACELESS}]+|(?:(?![{_SPACELESS}])(?:[^\W_]|[{_MARKS}]))+")
_SPACELESS_ONE = re.compile(rf"[{_SPACELESS}]")
_APOSTROPHE = re.compile(r"(?<=\w)['’ʼ](?=\w)")
_SMALL_WEIGHT = 0.1
# What is only added is less of a change than one thing in the place of another.
_ADDED = 0.4
_SLIP = 0.2
_FIRST_SLIP = 0.3
_SHORTEST_MISSPELT = 4
_MOST_PAIRED = 50

Bag = Counter[str]


def bag_of(text: str) -> Bag:
    """Return a text's words and how often they stand.

    Scripts without spaces, such as Chinese, give their characters in ones and twos.
    """
    plain = _APOSTROPHE.sub("", unicodedata.normalize("NFKC", text).casefold())
    bag: Bag = Counter()
    for token in _TOKEN.findall(plain):
        if not is_spaceless(token[0]):
            bag[token] += 1
        else:
            bag.update(token)
            bag.update(map("".join, pairwise(token)))
    # Without any word, in emoji or punctuation, the text is what it looks like.
    return bag or Counter(plain.split())


def is_spaceless(character: str) -> bool:
    """Whether a character is of a script that is written without spaces."""
    return character >= "\u0e00" and _SPACELESS_ONE.match(character) is not None


@lru_cache(maxsize=1 << 16)
def weight(word: str) -> float:
    """Return how much a word says: 1, little for a small one, nothing for a courtesy."""
    if word in _COURTESY:
        return 0.0
    if word in _SMALL or _SMALL_CHARACTERS.issuperset(word):
        return _SMALL_WEIGHT
    return 1.0


def similarity(first: Bag, second: Bag, least: float = 0.0) -> float:
    """Return 1 for the same words in any order, down to 0 for nothing in common.

    What is surely below `least` may be told as 0, which is quicker.
    """
    total = max(_weight_of(first), _weight_of(second))
    if total == 0:
        return float(first == second)
    here, there = first - second, second - first
    if _has_number(here) and _has_number(there):
        return 0.0
    most = (1 - least) * total
    if _least_distance(here, there) > most + 1e-9:
        return 0.0
    slips = _pair_spellings(here, there)
    lacking, added = sorted((_weight_of(here), _weight_of(there)))
    distance = lacking + _ADDED * (added - lacking) + slips
    return max(0.0, 1 - distance / total)


def _least_distance(here: Bag, there: Bag) -> float:
    """Return the distance if every word were a spelling of one on the other side."""
    (telling_here, small_here), (telling_there, small_there) = map(_count_kinds, (here, there))
    # A telling word may also be a misspelt small one, which costs next to nothing. It is done where
    # it helps: a word that has a partner on the other side is cheaper with it.
    more, most_fewer = max(
        (max(0, telling_here - small_there), telling_there),
        (max(0, telling_there - small_here), telling_here),
    )
    fewer = min(more, most_fewer)
    return _SLIP * fewer + _ADDED * (more - fewer)


def _count_kinds(bag: Bag) -> tuple[int, int]:
    telling = sum(count for word, count in bag.items() if weight(word) == 1)
    return telling, bag.total() - telling


def shingles(bag: Bag) -> list[str]:
    """Return what a text is looked up by: the letter triples of its words that say something."""
    weights = {word: weight(word) for word in bag}
    most = max(weights.values(), default=0)
    return [
        piece
        for word, value in weights.items()
        if value == most
        for piece in ([word] if is_spaceless(word[0]) else _triples(f" {word} "))
    ]


def _triples(word: str) -> list[str]:
    return [word[i : i + 3] for i in range(len(word) - 2)]


def _weight_of(bag: Bag) -> float:
    return sum(weight(word) * count for word, count in bag.items())


def _has_number(bag: Bag) -> bool:
    return any(character.isdigit() for word in bag for character in word)


def _pair_spellings(here: Bag, there: Bag) -> float:
    """Take words that are spellings of one another out of both; return what they differ by."""
    pairs = [
        (slip * min(weight(word), weight(other)), word, other)
        for word in sorted(here)[:_MOST_PAIRED]
        for other in sorted(there)[:_MOST_PAIRED]
        # One slip leaves the first letter or the last as it was.
        if (word[0] == other[0] or word[-1] == other[-1]) and (slip := _slip(word, other))
    ]
    cost = 0.0
    for slip, word, other in sorted(pairs, key=lambda pair: (pair[0], *sorted(pair[1:]))):
        while here[word] > 0 and there[other] > 0:
            cost += slip
            here[word] -= 1
            there[other] -= 1
    return cost


@lru_cache(maxsize=1 << 16)
def _slip(word: str, other: str) -> float:
    """Return what two spellings of a word differ by; 0 where they are two words."""
    shorter, longer = sorted((len(word), len(other)))
    if longer < _SHORTEST_MISSPELT or shorter < _SHORTEST_MISSPELT - 1 or longer - shorter > 3:
        return 0.0
    start = _common_start(word, other)
    if start >= 0.6 * longer and start >= _SHORTEST_MISSPELT:
        return _SLIP
    end = _common_start(word[start:][::-1], other[start:][::-1])
    left, right = word[start : len(word) - end], other[start : len(other) - end]
    most = 2 if shorter >= 8 else 1
    if max(len(left), len(right)) > most and not (len(left) == 2 and left == right[::-1]):
        return 0.0
    # People seldom miss the first letter, and many short words differ by it alone: kill, bill.
    return _SLIP if start or shorter >= 6 else _FIRST_SLIP


def _common_start(word: str, other: str) -> int:
    count = 0
    for one, two in zip(word, other, strict=False):
        if one != two:
            break
        count += 1
    return count
