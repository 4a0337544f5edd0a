"""The key of a review: which model wrote what is shown where. It never goes into the package.

key = read_key(Path("expert_review_key.json"))
key.reviewer("r02").items[0].models        # in the order in which they are shown
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ccai_core.config import Config, explain
from ccai_core.errors import DataError
from ccai_core.human_evaluation.questions import Choice

KEY_VERSION = 1
Kind = Literal["pair", "rating"]


class KeyItem(Config):
    """What an item of one reviewer really is."""

    id: str = Field(description="Its random id on that reviewer's page.")
    kind: Kind = Field(description="Two answers, or one.")
    prompt: str = Field(description="Number of the prompt; '' for an attention check.")
    models: tuple[str, ...] = Field(description="Who wrote what is shown, in order.")
    choice: Choice | None = Field(None, description="What a check of attention asks to choose.")
    rating: int | None = Field(None, description="What a check of attention asks to rate.")

    @property
    def is_check(self) -> bool:
        """Whether it only checks that the texts are read."""
        return not self.prompt


class ReviewerKey(Config):
    """One reviewer's page."""

    id: str = Field(description="Number of the reviewer, as in the page's file name.")
    token: str = Field(description="What this page signs its export with.")
    items: tuple[KeyItem, ...] = Field(description="In the order shown.")


class KeyPrompt(Config):
    """A prompt of the review, by number."""

    label: str = Field(description="What it is about.")
    text: str = Field(description="The prompt; may be harmful by design.")
    harmful: bool = Field(description="Shown only after a warning.")
    scores: dict[str, float] = Field(description="Model to the judge's score, where there is one.")


class ReviewKey(Config):
    """Everything that is needed to read the reviewers' answers."""

    version: int = Field(KEY_VERSION, description="Of this file's layout.")
    package: str = Field(description="Random id of the package.")
    created: str = Field(description="UTC time, ISO 8601.")
    models: tuple[str, ...] = Field(description="All models compared.")
    prompts: dict[str, KeyPrompt] = Field(description="Number to prompt.")
    excluded: dict[str, int] = Field(description="Prompts that were not shown, by reason.")
    reviewers: tuple[ReviewerKey, ...] = Field(description="A page each.")

    def reviewer(self, identity: str) -> ReviewerKey | None:
        """Return the page of a reviewer; None where there is none of that number."""
        return next((each for each in self.reviewers if each.id == identity), None)


def read_key(path: Path) -> ReviewKey:
    """Read the key that `build` wrote.

    Raises:
        DataError: it cannot be read, or is none; says which file.
    """
    try:
        return ReviewKey.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: the key of the review cannot be read ({error.strerror}). It was written "
            "beside the package; without it nobody can say which model is which."
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text, so no key of a review.") from None
    except ValidationError as error:
        raise DataError(explain(error, ReviewKey, f"{path} (a review's key)")) from None
