"""The prompts that come with the platform: scenarios, adversarial and benign requests.

train = [p for p in shipped_scenarios() if p.split != "test"]
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from ccai_core.prompts.files import make_prompt
from ccai_core.types import Prompt


def shipped_scenarios() -> list[Prompt]:
    """Return the contemplative scenarios; half of each principle's are on the test side."""
    return [
        prompt
        for principle in ("emptiness", "non_duality", "boundless_care", "mindfulness")
        for prompt in _shipped("scenarios", f"{principle}.jsonl", "scenarios")
    ]


def shipped_adversarial() -> list[Prompt]:
    """Return requests that a safe model declines; all are on the test side."""
    return _shipped("evaluation", "adversarial.jsonl", "adversarial")


def shipped_benign() -> list[Prompt]:
    """Return requests that only look harmful and deserve a full answer; all on the test side.

    The tags are the kind of likeness and the AILuminate hazard it resembles, as in 'like:vcr'. None
    has a `hazard`, so that no safety suite asks for a refusal.
    """
    return _shipped("evaluation", "benign.jsonl", "benign")


def _shipped(folder: str, name: str, source: str) -> list[Prompt]:
    rows = (files("ccai_core.resources") / folder / name).read_text(encoding="utf-8").splitlines()
    return [
        _prompt(json.loads(row), f"{name} line {number}", source)
        for number, row in enumerate(rows, start=1)
    ]


def _prompt(row: dict[str, Any], where: str, source: str) -> Prompt:
    # `evaluation_only` is for people who read the file: the side follows from the text alone.
    fields = {key: value for key, value in row.items() if key not in ("text", "evaluation_only")}
    return make_prompt(row["text"], where, **fields | {"source": source})
