"""Text for load tests: answers that are a function of the call, prompts, a tiny model's folder.

An answer is made of ordinary sentences picked by the hash of the call, so it passes the pair
filters, is the same whoever gives it, and differs from all others. About one in twelve is cut off.

    engine = Instant()
    completion = await engine.generate(call)
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from pathlib import Path

from ccai_core.prompts.splits import split_of
from ccai_core.types import Call, Completion, Prompt

MODEL = "stand-in@1"

_WHO = "A friend|My neighbour|Your sister|The teacher|An old man|Her brother|The child|A colleague"
_DOES = "listens to|waits for|forgives|remembers|thanks|helps|walks beside|writes to"
_WHOM = "the other person|someone in trouble|a stranger|the whole family|people in the village"
_HOW = "with patience|without any fear|in the quiet morning|by the river|because it matters"
_SENTENCES = [
    f"{who} {does} {whom} {how}."
    for who, does, whom, how in itertools.product(
        *(part.split("|") for part in (_WHO, _DOES, _WHOM, _HOW))
    )
]


def text_of(digest: bytes, sentences: int = 7) -> str:
    """Return some sentences that the digest decides."""
    numbers = int.from_bytes(digest[:16], "little")
    chosen = []
    for _ in range(sentences):
        numbers, place = divmod(numbers, len(_SENTENCES))
        chosen.append(_SENTENCES[place])
    return " ".join(chosen)


def is_cut(digest: bytes) -> bool:
    """Whether the answer with this digest runs into its limit."""
    return digest[-1] < 21


def answer(key: str) -> Completion:
    """Return the completion of the call with this key."""
    digest = hashlib.sha256(key.encode()).digest()
    return Completion(
        text=text_of(digest),
        finish_reason="length" if is_cut(digest) else "stop",
        prompt_tokens=200 + digest[20],
        completion_tokens=60 + digest[21] // 2,
        model=MODEL,
        endpoint="stand-in",
    )


class Instant:
    """`Generate` in this process that answers in the next turn of the loop, `places` at a time."""

    model = MODEL

    def __init__(self, places: int = 512) -> None:
        self.room = places

    async def generate(self, call: Call) -> Completion:
        """Answer a call."""
        self.room -= 1
        await asyncio.sleep(0)
        self.room += 1
        return answer(call.key(self.model))


def prompts(count: int) -> list[Prompt]:
    """Return questions of the train side, all different."""
    texts = (f"How do I help friend number {n}, who waits for people?" for n in itertools.count())
    asked = itertools.islice((text for text in texts if split_of(text) == "train"), count)
    return [
        Prompt(id=f"q{n}", text=text, source="stand-in", split="train")
        for n, text in enumerate(asked)
    ]


def memory_mb() -> float:
    """Return the memory that this process has in use now (resident), in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
