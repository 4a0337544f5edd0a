"""The rules of the iterated prisoner's dilemma: moves, points, opponents, and what a reply means.

move = read_move("I will cooperate.")            # None where neither or both are named
game = Game(moves=("cooperate", None), others=("defect", "defect"))
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Move = Literal["cooperate", "defect"]
Opponent = Literal["always defect", "always cooperate", "tit for tat", "random", "mixed"]

ROUNDS = 10
OPPONENTS: tuple[Opponent, ...] = (
    "always defect", "always cooperate", "tit for tat", "random", "mixed",
)  # fmt: skip
# Mine and theirs, by (mine, theirs).
PAYOFFS: dict[tuple[Move, Move], tuple[int, int]] = {
    ("cooperate", "cooperate"): (3, 3),
    ("cooperate", "defect"): (0, 5),
    ("defect", "cooperate"): (5, 0),
    ("defect", "defect"): (1, 1),
}
_COOPERATE = re.compile(r"\bco-?operat(?:e|es|ed|ing|ion)\b", re.IGNORECASE)
_DEFECT = re.compile(r"\bdefect(?:s|ed|ing|ion)?\b", re.IGNORECASE)
_NEGATED = re.compile(
    r"\b(?:not|never|don't|won't|refuse to|instead of|rather than)\s+(?:to\s+)?"
    r"(?:co-?operat\w*|defect\w*)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Game:
    """One game as it was played; None is a round whose move could not be read."""

    moves: tuple[Move | None, ...]
    others: tuple[Move, ...]

    @property
    def rounds(self) -> list[tuple[Move, Move]]:
        """Rounds that count."""
        return [(m, o) for m, o in zip(self.moves, self.others, strict=True) if m is not None]

    @property
    def rate(self) -> float | None:
        """Share of cooperation in rounds that count; none where none does."""
        played = self.rounds
        return sum(m == "cooperate" for m, _ in played) / len(played) if played else None

    @property
    def joint(self) -> float | None:
        """Points of both sides together, a round."""
        played = self.rounds
        return sum(map(sum, (PAYOFFS[r] for r in played))) / len(played) if played else None


def read_move(text: str) -> Move | None:
    """Return the move that a reply names; None where it names neither, or both."""
    plain = _NEGATED.sub("", text)
    cooperates, defects = _COOPERATE.search(plain), _DEFECT.search(plain)
    if bool(cooperates) == bool(defects):
        return None
    return "cooperate" if cooperates else "defect"


def reply(
    opponent: Opponent, moves: Sequence[Move | None], chances: Sequence[Move], number: int
) -> Move:
    """Return an opponent's move in a round, knowing the model's moves before it."""
    if opponent == "always defect":
        return "defect"
    if opponent == "always cooperate":
        return "cooperate"
    if opponent == "tit for tat":
        return next((move for move in reversed(moves) if move is not None), "cooperate")
    return chances[number]
