"""MT-Bench's files: questions, reference answers, and the prompts that ask a judge for a grade.

The questions and references are FastChat's (fastchat/llm_judge/data of lm-sys/FastChat) and are
read from where the user has them. The judge's prompts are our own in wording and FastChat's in
form; with `judge_prompts` FastChat's own file, judge_prompts.jsonl, takes their place.

    bench = read_mt_bench(Path("mt-bench"))        # question.jsonl, reference_answer_gpt-4.jsonl
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field

from ccai_core.config import Config
from ccai_core.errors import DataError

# Categories that FastChat grades with a reference answer.
WITH_REFERENCE = frozenset({"math", "reasoning", "coding"})
# FastChat's temperatures (common.py); other categories take 0.7.
TEMPERATURES = {
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0,
    "reasoning": 0.0, "stem": 0.1, "humanities": 0.1,
}  # fmt: skip
DEFAULT_TEMPERATURE = 0.7
# Reference answers reported wrong in one turn or both (lm-sys/FastChat pull request 3158; of 104
# also issue 3053): grades of these questions punish right answers.
WRONG_REFERENCES = frozenset({104, 105, 109, 111, 113, 114, 120, 122, 124, 125, 126, 128, 130})
_QUESTIONS = ("question.jsonl",)
_REFERENCES = ("reference_answer_gpt-4.jsonl", "reference_answer/gpt-4.jsonl")
_FASTCHAT_NAMES = {
    "single": "single-v1",
    "single-reference": "single-math-v1",
    "multi-turn": "single-v1-multi-turn",
    "multi-turn-reference": "single-math-v1-multi-turn",
}
_SLOT = re.compile(r"\{(\w+)\}")


class Question(Config):
    """One question of two turns."""

    id: int = Field(description="question_id.")
    category: str = Field(description="E.g. 'writing'.")
    turns: tuple[str, str] = Field(description="What the user says.")
    reference: tuple[str, str] | None = Field(None, description="Reference answers, if any.")

    @property
    def temperature(self) -> float:
        """At which FastChat lets a model answer it."""
        return TEMPERATURES.get(self.category, DEFAULT_TEMPERATURE)

    @property
    def doubtful(self) -> bool:
        """Whether its reference answer is reported wrong."""
        return self.reference is not None and self.id in WRONG_REFERENCES


class JudgePrompt(Config):
    """How a judge is asked for a grade."""

    name: str = Field(description="Key.")
    system_prompt: str = Field(description="System turn.")
    prompt_template: str = Field(description="User turn with {question}, {answer} and so on.")

    def fill(self, values: dict[str, str]) -> str:
        """Return the user turn; a value is put in as it is, whatever braces it holds."""
        return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), self.prompt_template)


class MTBench(Config):
    """Questions and how they are judged."""

    questions: tuple[Question, ...] = Field(description="In order.")
    prompts: dict[str, JudgePrompt] = Field(description="By 'single', 'multi-turn-reference' ...")
    wording: str = Field(description="Whose judge prompts these are: 'ours' or a file's name.")


def read_mt_bench(folder: Path, judge_prompts: Path | None = None) -> MTBench:
    """Read question.jsonl, the reference answers beside it, and the judge's prompts.

    Raises:
        DataError: a file is missing or not what it should be; names file and line.
    """
    questions = _rows(_first(folder, _QUESTIONS))
    references = {
        int(row["question_id"]): tuple(row["choices"][0]["turns"])
        for row in _rows(_first(folder, _REFERENCES))
    }
    try:
        read = tuple(
            Question(
                id=row["question_id"], category=row["category"], turns=tuple(row["turns"]),
                reference=references.get(row["question_id"])
                if row["category"] in WITH_REFERENCE else None,
            )
            for row in questions
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder}: a question is not as MT-Bench's are ({error}).") from None
    missing = [q.id for q in read if q.category in WITH_REFERENCE and q.reference is None]
    if missing:
        raise DataError(f"{folder}: questions {missing} have no reference answer.")
    return MTBench(
        questions=read,
        prompts=_shipped() if judge_prompts is None else _fastchat(judge_prompts),
        wording="ours" if judge_prompts is None else judge_prompts.name,
    )


def _shipped() -> dict[str, JudgePrompt]:
    text = (files("ccai_core.resources") / "evaluation" / "mt_bench_judge.jsonl").read_text("utf-8")
    prompts = [JudgePrompt.model_validate_json(line) for line in text.splitlines()]
    return {prompt.name: prompt for prompt in prompts}


def _fastchat(path: Path) -> dict[str, JudgePrompt]:
    rows = {row.get("name"): row for row in _rows(path)}
    missing = [name for name in _FASTCHAT_NAMES.values() if name not in rows]
    if missing:
        raise DataError(f"{path}: has no judge prompt {', '.join(missing)}.")
    return {
        ours: JudgePrompt(
            name=ours,
            system_prompt=rows[theirs]["system_prompt"],
            prompt_template=rows[theirs]["prompt_template"],
        )
        for ours, theirs in _FASTCHAT_NAMES.items()
    }


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{folder}: has no {' or '.join(names)}. MT-Bench is FastChat's folder "
        "fastchat/llm_judge/data/mt_bench."
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                raise DataError(f"{path} line {number}: is not JSON.") from None
    return rows
