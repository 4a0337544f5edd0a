"""The prompts that come with the platform: contemplative scenarios and adversarial requests.

train = [p for p in shipped_scenarios() if p.split != "test"]
"""

from __future__ import annotations

from importlib.resources import as_file, files

from ccai_core.prompts.files import load_prompts
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


def _shipped(folder: str, name: str, source: str) -> list[Prompt]:
    with as_file(files("ccai_core.resources") / folder / name) as path:
        return [p.model_copy(update={"source": source}) for p in load_prompts(path)]
