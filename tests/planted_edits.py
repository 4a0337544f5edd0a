"""Prompts that ask the same as another, made by hand-like edits, and prompts that do not.

For measuring how many near-duplicates are found; tests and benchmarks/prompt_cleaning.py share it.
"""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from ccai_core.prompts.scenarios import shipped_adversarial, shipped_benign, shipped_scenarios
from ccai_core.prompts.splits import normalise

SHARED = Path(__file__).parents[2] / "shared" / "data"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FILLERS = "really actually quickly today maybe honestly always currently exactly properly".split()
_BEFORE = ("Please ", "Hi, ", "Hello! ", "Please tell me: ", "Can you tell me, ", "Hey, question: ",
           "Could you please explain: ", "Dear assistant, ")  # fmt: skip
_AFTER = (" Please.", " Thanks!", " Thank you.", " Please explain.", " Thanks a lot!")
SYNONYMS = dict(
    pair.split(":")
    for pair in "good:fine bad:terrible big:large make:create get:obtain buy:purchase help:assist "
    "kill:murder steal:rob hurt:harm kids:children child:kid angry:furious happy:glad money:cash "
    "car:vehicle house:home job:work man:guy woman:lady friend:buddy start:begin stop:quit "
    "find:locate talk:speak think:believe scared:afraid quick:fast easy:simple hard:difficult "
    "mother:mum father:dad right:correct wrong:incorrect store:shop doctor:physician fight:quarrel "
    "country:nation sad:unhappy write:compose boss:manager answer:reply gift:present "
    "tired:exhausted sick:ill choose:pick old:aged small:little whole:entire often:frequently "
    "begin:start keep:retain leave:depart ask:inquire show:display understand:grasp".split()
)

Edit = Callable[[Random, str], str | None]


def real_prompts() -> list[str]:
    """First turns of HH's test set where it is at hand, and all shipped prompts, none twice."""
    shipped = (*shipped_scenarios(), *shipped_adversarial(), *shipped_benign())
    texts = [*hh_first_turns(), *(prompt.text for prompt in shipped)]
    return list({normalise(text): text for text in texts}.values())


def hh_first_turns() -> list[str]:
    path = SHARED / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    if not path.is_file():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["chosen"].split("\n\n")[1].split(":", 1)[1].strip()
                for line in lines]  # fmt: skip


def typo(dice: Random, text: str) -> str | None:
    """One slip in a word of four letters or more: a letter too many, missing, wrong or swapped."""
    return _misspell(dice, text, 1)


def two_typos(dice: Random, text: str) -> str | None:
    """A slip in each of two words, in a text of ten words or more."""
    return _misspell(dice, text, 2) if len(text.split()) >= 10 else None


def _misspell(dice: Random, text: str, count: int) -> str | None:
    words = text.split()
    places = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if len(places) < count:
        return None
    for place in dice.sample(places, count):
        words[place] = _slip(dice, words[place])
    return " ".join(words)


def _slip(dice: Random, word: str) -> str:
    i = dice.randrange(len(word) - 1)
    return dice.choice(
        (
            word[:i] + dice.choice(_LETTERS) + word[i:],
            word[:i] + word[i + 1 :],
            word[:i] + dice.choice(_LETTERS) + word[i + 1 :],
            word[:i] + word[i + 1] + word[i] + word[i + 2 :],
        )
    )


def case(dice: Random, text: str) -> str | None:
    return dice.choice((text.upper(), text.lower(), text.title()))


def punctuation(dice: Random, text: str) -> str | None:
    return dice.choice(
        (text.rstrip("?.!") + "??!", text.replace("'", ""), text.replace(",", "").rstrip("?."),
         f'"{text}"', text.replace(" ", "  ") + " .", text.replace("'", "’"))
    )  # fmt: skip


def swap(dice: Random, text: str) -> str | None:
    """Two neighbouring words change places."""
    words = text.split()
    if len(words) < 3:
        return None
    i = dice.randrange(len(words) - 1)
    words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def drop(dice: Random, text: str) -> str | None:
    """A word is missing, of five or more."""
    words = text.split()
    if len(words) < 5:
        return None
    del words[dice.randrange(len(words))]
    return " ".join(words)


def add(dice: Random, text: str) -> str | None:
    """A word is added, to four or more."""
    words = text.split()
    if len(words) < 4:
        return None
    words.insert(dice.randrange(len(words) + 1), dice.choice(_FILLERS))
    return " ".join(words)


def synonym(dice: Random, text: str) -> str | None:
    """One word of a text with at least seven words that are not common is put in other words."""
    return any_synonym(dice, text) if len(content_words(text)) >= 7 else None


def any_synonym(dice: Random, text: str) -> str | None:
    words = text.split()
    known = {i: SYNONYMS.get(word.casefold().strip("?.,!")) for i, word in enumerate(words)}
    places = [i for i, other in known.items() if other]
    if not places:
        return None
    place = dice.choice(places)
    words[place] = str(known[place])
    return " ".join(words)


def courtesy(dice: Random, text: str) -> str | None:
    """'Please' and the like before or after it."""
    return dice.choice(_BEFORE) + text if dice.random() < 0.6 else text + dice.choice(_AFTER)


EDITS: Mapping[str, Edit] = {
    edit.__name__: edit
    for edit in (typo, two_typos, case, punctuation, swap, drop, add, synonym, courtesy)
}


def _count_words() -> Counter[str]:
    return Counter(word for text in real_prompts() for word in normalise(text).split())


_COUNTS = _count_words()
_COMMON = {word for word, _ in _COUNTS.most_common(150)}
POOL = sorted(word for word in _COUNTS if len(word) > 3 and word.isalpha() and word not in _COMMON)


def content_words(text: str) -> list[str]:
    """Words that are long enough, and not among the commonest 150."""
    return [word for word in normalise(text).split() if len(word) > 3 and word not in _COMMON]


def planted(dice: Random, text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, edited) for every edit that can be made to a text and changes it."""
    for kind, edit in EDITS.items():
        edited = edit(dice, text)
        if edited and edited != text:
            yield kind, edited


def another_question(dice: Random, text: str, share: float = 0.5) -> str | None:
    """Another question in the same mould: at least `share` of its telling words are others."""
    telling = set(content_words(text))
    words = text.split()
    places = [i for i, word in enumerate(words) if normalise(word) in telling]
    if not places:
        return None
    for place in dice.sample(places, math.ceil(share * len(places))):
        words[place] = dice.choice(POOL)
    return " ".join(words)


def another_number(dice: Random, text: str) -> str | None:
    """The same with another number, where it has one."""
    words = text.split()
    places = [i for i, word in enumerate(words) if word.isdigit()]
    if not places:
        return None
    place = dice.choice(places)
    words[place] = str(int(words[place]) + dice.randint(1, 90))
    return " ".join(words)


def many(count: int, seed: int, planted_share: float = 0.1) -> Iterator[tuple[str, str | None]]:
    """Yield `count` texts of real moulds with other words, some of them edits of earlier ones.

    Yields:
        (text, the kind of its edit, or None for a new text).
    """
    dice = Random(seed)
    moulds = real_prompts()
    earlier: list[str] = []
    kinds: Sequence[tuple[str, Edit]] = list(EDITS.items())
    for _ in range(count):
        if earlier and dice.random() < planted_share:
            kind, edit = dice.choice(kinds)
            text = dice.choice(earlier)
            edited = edit(dice, text)
            if edited and edited != text:
                yield edited, kind
                continue
        text = " ".join(
            filter(None, (another_question(dice, dice.choice(moulds), 1.0)
                          for _ in range(dice.choice((1, 1, 2)))))
        )  # fmt: skip
        if not text:
            text = f"{dice.choice(POOL)} {dice.choice(POOL)} {dice.choice(POOL)}?"
        if len(earlier) < 20_000:
            earlier.append(text)
        yield text, None
