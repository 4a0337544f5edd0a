"""A text that is to be drawn: from which tokens, how, with which seed, and where it stops.

draw = Draw(tokens, Sampling(), seed="a", stop=("END",))
text, stopped = draw.cut("All said. END of it")      # 'All said. ', True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ccai_core.types import Sampling

# A token is a byte of text at least, unless it is a control token; of those this many may be there.
_SILENT_TOKENS = 8


class Draw(NamedTuple):
    """What an engine needs to know to write one text."""

    tokens: list[int]
    sampling: Sampling
    seed: str
    stop: tuple[str, ...] = ()

    @property
    def group(self) -> tuple[Any, ...]:
        """What may share a batch: draws that are drawn alike."""
        return ("generate", *self.sampling.model_dump(exclude={"seed"}).values())

    def is_over(self, said: Sequence[int], tokenizer: Any) -> bool:
        """Return whether the newest tokens spell a stop text."""
        if not self.stop:
            return False
        reach = max(len(text.encode()) for text in self.stop) + _SILENT_TOKENS
        end = tokenizer.decode(said[-reach:], skip_special_tokens=True)
        return any(text in end for text in self.stop)

    def cut(self, text: str) -> tuple[str, bool]:
        """Return the text up to the first stop text, and whether there was one."""
        places = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        return text[: min(places, default=None)], bool(places)
