"""A small review: answers of two models, simulated reviewers with opinions, and their files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from ccai_core.human_evaluation.answers import ReviewPrompt
from ccai_core.human_evaluation.collect import sign
from ccai_core.human_evaluation.design import DesignConfig
from ccai_core.human_evaluation.key import KeyItem, ReviewerKey, ReviewKey
from ccai_core.human_evaluation.questions import QUESTIONS
from ccai_core.human_evaluation.sheets import Sheet, make_sheets

BASE, TUNED = "org/base@1", "org/tuned@2"
MODELS = (BASE, TUNED)
HOSTILE = "</script><script>globalThis.pwned=1</script><img src=x onerror='globalThis.pwned=1'>"


def prompts(count: int, models: tuple[str, ...] = MODELS, **more: Any) -> list[ReviewPrompt]:
    return [
        ReviewPrompt(
            **{
                "id": f"p{number:04}",
                "text": f"What should I do about matter {number}?",
                "label": ("emptiness", "mindfulness")[number % 2],
                "harmful": number % 5 == 4,
                "answers": {
                    model: f"Here is what one may think of matter {number}, said {way} times."
                    for way, model in enumerate(models, start=1)
                },
                "scores": {model: float(place) for place, model in enumerate(models)},
                **more,
            }
        )
        for number in range(count)
    ]


def review(
    count: int = 8, seed: int = 0, models: tuple[str, ...] = MODELS, **design: Any
) -> tuple[list[Sheet], ReviewKey]:
    return make_sheets(
        prompts(count, models), models, DesignConfig(prompts=count, **design), random.Random(seed)
    )


def opinion(item: KeyItem, rng: random.Random, liking: float = 0.75) -> dict[str, Any]:
    """What a reviewer enters who likes TUNED with that chance, and does as checks say."""
    if item.is_check:
        every = {q.id: item.rating for q in QUESTIONS}
        return {"choice": item.choice} if item.kind == "pair" else {"ratings": every}
    if item.kind == "pair":
        likes = TUNED if rng.random() < liking else BASE
        return {"choice": "equal" if rng.random() < 0.1 else "ab"[item.models.index(likes)]}
    # Answers to some prompts are better than to others, and reviewers see that.
    level = 2 + (item.models[0] == TUNED) + hash_of(item.prompt) % 2
    return {"ratings": {q.id: min(5, level + (rng.random() < 0.3)) for q in QUESTIONS}}


def hash_of(text: str) -> int:
    return sum(text.encode())


def saved(key: ReviewKey, page: ReviewerKey, opinions: dict[str, Any], **more: Any) -> dict:
    """What a page saves, signed as it does."""
    answers = [
        {
            "id": item.id,
            "choice": None,
            "ratings": {},
            "comment": "",
            "skipped": False,
            "opened": True,
            "seconds": 30,
            "at": "2026-11-26T12:00:00.000Z",
            **opinions[item.id],
        }
        for item in page.items
        if item.id in opinions
    ]
    values = {
        "format": "ccai-expert-review",
        "version": 1,
        "package": key.package,
        "reviewer": page.id,
        "consent": "2026-11-26T11:00:00.000Z",
        "started": "2026-11-26T11:00:00.000Z",
        "exported": "2026-11-26T13:00:00.000Z",
        "complete": len(answers) == len(page.items),
        "answers": answers,
        **more,
    }
    return values | {"signature": sign(values, page.token)}


def write(folder: Path, values: dict, name: str = "") -> Path:
    path = folder / (name or f"review-{values['reviewer']}.json")
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def all_files(folder: Path, key: ReviewKey, seed: int = 0, liking: float = 0.75) -> list[Path]:
    rng = random.Random(seed)
    return [
        write(folder, saved(key, page, {i.id: opinion(i, rng, liking) for i in page.items}))
        for page in key.reviewers
    ]
