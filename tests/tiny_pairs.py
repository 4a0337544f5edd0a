"""A preference pair of a few words, by number; two follow each prompt."""

from __future__ import annotations

from typing import Any


def pair(number: int) -> dict[str, Any]:
    def turn(role: str, content: str) -> list[dict[str, str]]:
        return [{"role": role, "content": content}]

    return {
        "prompt": turn("user", f"Question {number // 2}: how should I act?"),
        "chosen": turn("assistant", f"With care, and kindly, in the way {number} of a friend."),
        "rejected": turn("assistant", f"No. I do not know {number}."),
        "principle": "care", "prompt_id": f"q{number // 2}", "source": "test", "critique": "",
        "provenance": {},
    }  # fmt: skip
