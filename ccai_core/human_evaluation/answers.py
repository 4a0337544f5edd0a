"""The answers that people are to judge, from evaluations and from files of your own.

An evaluation brings the answers of its two models with the judge's scores. A JSONL file has a line
an answer: {"prompt": "…", "model": "…", "answer": "…"}, and where there is any, "score" (a
judge's), "label" and "harmful".

    prompts, excluded = read_answers([Path("evaluation.json"), Path("more.jsonl")])
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from ccai_core.config import Config, explain
from ccai_core.errors import DataError
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.prompts.splits import normalise, split_of

EVALUATION_FILE = "evaluation.json"
_HARMFUL_GROUPS = ("safety", "robustness")
# Letters of a model's name that are no ordinary word by chance, as in 'smollm2-135m-instruct'.
_NAME = re.compile(r"(?!instruct|model|trained|tuned|baseline|embedded|assistant)[a-z]{5,}")
_WITHHELD = "Members-only prompt "


# Where it stands, for messages, and the answer.
Found = tuple[str, "GivenAnswer"]


class GivenAnswer(Config):
    """One line of a file of answers."""

    prompt: str = Field(min_length=1, description="The prompt, as the model got it.")
    model: str = Field(min_length=1, description="Who answered.")
    answer: str = Field(description="What it answered.")
    score: float | None = Field(None, description="A judge's score of the answer, if there is any.")
    label: str = Field("", description="What the prompt is about, to spread the choice over.")
    harmful: bool = Field(False, description="The prompt is harmful by design.")
    held_out: bool = Field(False, description="It is held out, whatever side its words are on.")


class ReviewPrompt(Config):
    """A prompt and what each model answered to it."""

    id: str = Field(description="Number within the review, never shown to reviewers.")
    text: str = Field(description="The prompt.")
    label: str = Field(description="What it is about.")
    harmful: bool = Field(description="Shown only after a warning.")
    answers: dict[str, str] = Field(description="Model to answer.")
    scores: dict[str, float] = Field(description="Model to the judge's score, where there is one.")


def read_answers(
    sources: Sequence[Path], models: Sequence[str] = ()
) -> tuple[list[ReviewPrompt], dict[str, int]]:
    """Return the prompts that all models answered, and how many others there are, by reason.

    Args:
        sources: evaluation.json files, folders with one, or JSONL files.
        models: those to be compared; none: all that are named in the sources.

    Raises:
        DataError: a source cannot be read, answers disagree, or fewer than two models have any.
    """
    given = [found for source in sources for found in _read(source.expanduser())]
    named = list(dict.fromkeys(answer.model for _, answer in given))
    wanted = list(dict.fromkeys(models)) or named
    if unknown := [model for model in wanted if model not in named]:
        raise DataError(f"No answers of {', '.join(unknown)}. There are: {', '.join(named)}.")
    if len(wanted) < 2:
        raise DataError(
            f"A review compares two models or more; the sources have answers of {len(wanted)}. "
            "Give an evaluation, or files with lines of other models."
        )
    excluded: Counter[str] = Counter()
    prompts: list[ReviewPrompt] = []
    for answers in _by_prompt(given).values():
        if reason := _unfit(answers, wanted):
            excluded[reason] += 1
        else:
            prompts.append(_prompt(f"p{len(prompts) + 1:04}", answers, wanted))
    return prompts, dict(excluded)


def naming_themselves(prompts: Iterable[ReviewPrompt]) -> int:
    """Return how many answers hold a word of their model's name: they blind nobody."""
    return sum(
        any(word in answer.casefold() for word in _NAME.findall(Path(model).name.casefold()))
        for prompt in prompts
        for model, answer in prompt.answers.items()
    )


def _read(source: Path) -> Iterator[Found]:
    file = source / EVALUATION_FILE if source.is_dir() else source
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}). Give evaluation.json files, folders with "
            "one, or JSONL files of answers."
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not UTF-8 text.") from None
    return _from_evaluation(text, file) if file.suffix == ".json" else _from_lines(text, file)


def _from_evaluation(text: str, file: Path) -> Iterator[Found]:
    try:
        result = EvaluationResult.model_validate_json(text)
    except ValidationError as error:
        raise DataError(explain(error, EvaluationResult, f"{file} (an evaluation)")) from None
    for number, example in enumerate(result.examples, start=1):
        for model, answer, score in (
            (result.baseline_model, example.baseline, example.baseline_score),
            (result.trained_model, example.trained, example.trained_score),
        ):
            yield (
                f"{file} example {number}",
                GivenAnswer(
                    prompt=example.prompt,
                    model=model,
                    answer=answer,
                    score=score,
                    label=example.label,
                    harmful=example.group in _HARMFUL_GROUPS,
                    held_out=True,
                ),
            )


def _from_lines(text: str, file: Path) -> Iterator[Found]:
    # Not splitlines: an answer may hold a line separator of Unicode.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{file} line {number}"
            try:
                yield where, GivenAnswer.model_validate_json(line)
            except ValidationError as error:
                raise DataError(explain(error, GivenAnswer, where)) from None


def _by_prompt(given: Iterable[Found]) -> dict[str, dict[str, GivenAnswer]]:
    """Group the answers by the prompt's words; a model may answer once."""
    grouped: dict[str, dict[str, GivenAnswer]] = {}
    for where, answer in given:
        of_prompt = grouped.setdefault(normalise(answer.prompt) or answer.prompt, {})
        before = of_prompt.setdefault(answer.model, answer)
        if before.answer != answer.answer:
            raise DataError(
                f"{where}: {answer.model} answered this prompt before, and differently. Leave one "
                "of the two in, or name them as two models."
            )
    return grouped


def _unfit(answers: dict[str, GivenAnswer], models: Sequence[str]) -> str | None:
    if any(model not in answers for model in models):
        return "not answered by every model"
    chosen = [answers[model] for model in models]
    if chosen[0].prompt.startswith(_WITHHELD):
        return "members-only, without its text"
    if not all(answer.answer.strip() for answer in chosen):
        return "an empty answer"
    if not any(a.held_out for a in chosen) and split_of(chosen[0].prompt) != "test":
        return "not held out: training may have seen it"
    if len({answer.answer.strip() for answer in chosen}) == 1:
        return "all answers are the same"
    return None


def _prompt(identity: str, answers: dict[str, GivenAnswer], models: Sequence[str]) -> ReviewPrompt:
    chosen = [answers[model] for model in models]
    return ReviewPrompt(
        id=identity,
        text=chosen[0].prompt.strip(),
        label=next((answer.label for answer in chosen if answer.label), ""),
        harmful=any(answer.harmful for answer in chosen),
        answers={model: answers[model].answer.strip() for model in models},
        scores={m: s for m in models if (s := answers[m].score) is not None},
    )
