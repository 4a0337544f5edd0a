"""What an evaluation asked and was answered, as samples of Inspect's logs.

Perplexity is in no log: nothing is answered there. Of members-only prompts there is the id alone.

    logs = logs_of(config, work, said, (noted_before, noted_after), restricted, began, ended)
    write_logs(logs, out / "inspect")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from ccai_core.engines import Engine
from ccai_core.evaluation.capability import CapabilityItem, Choice, capability_items
from ccai_core.evaluation.compare import WITHHELD, withheld
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.inspect_log import Log, Sample
from ccai_core.evaluation.judge import ScorePair
from ccai_core.evaluation.judging import Opinion, Work
from ccai_core.evaluation.panel import mean_of_all
from ccai_core.evaluation.parts import Asked, Part, Scores
from ccai_core.evaluation.suite import Answers
from ccai_core.types import Call, Completion, Message, Prompt, fingerprint, user

SIDES = ("baseline", "trained")


class Noted:
    """An engine that remembers which conversation each completion answers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # The completion is kept as well, so that its id is nobody else's.
        self._said: dict[int, tuple[Completion, tuple[Message, ...]]] = {}

    @property
    def model(self) -> str:
        """Model identity of the engine behind."""
        return self._engine.model

    async def generate(self, call: Call) -> Completion:
        """Answer by the engine behind."""
        completion = await self._engine.generate(call)
        self._said[id(completion)] = completion, call.messages
        return completion

    def asked(self, completion: Completion) -> tuple[Message, ...]:
        """Return the conversation that was answered; nothing where it is not one of ours."""
        return self._said.get(id(completion), (completion, ()))[1]

    @property
    def dtype(self) -> str:
        """Weights' dtype of the engine behind."""
        return self._engine.dtype

    async def choose(self, messages: tuple[Message, ...], options: tuple[str, ...]) -> list[float]:
        """Ask the engine behind."""
        return await self._engine.choose(messages, options)

    async def text_logprob(self, text: str) -> tuple[float, int]:
        """Ask the engine behind."""
        return await self._engine.text_logprob(text)


def logs_of(
    config: EvaluationConfig,
    work: Work,
    said: Opinion,
    noted: Sequence[Noted],
    restricted: Sequence[Prompt],
    began: datetime,
    ended: datetime,
) -> Iterator[Log]:
    """Yield a log for every part and model.

    Args:
        config: suite, sampling, and whether members-only prompts are shown.
        work: what was asked and answered.
        said: what the judges think together.
        noted: the engines of both models, which know what was asked.
        restricted: members-only prompts.
        began: when the evaluation was started.
        ended: when it was finished.
    """
    hidden = () if config.include_restricted else tuple(restricted)
    settings = config.sampling.model_dump()
    for side, which in enumerate(SIDES):
        answers = (work.baseline, work.trained)[side]

        def log(
            part: str, scorer: str, samples: Sequence[Sample], which: str = which,
            model: str = answers.model,
        ) -> Log:  # fmt: skip
            return Log(part, config.suite, which, model, scorer, samples, settings, began, ended)

        for part, prompts, scores in (
            ("safety", work.items.safety, said.judged.safety),
            ("contemplative", work.items.scenarios, said.judged.contemplative),
        ):
            told = [_of_prompt(p, answers, scores, side) for p in prompts]
            yield log(part, said.name, [_shown(sample, hidden) for sample in told])
        items = capability_items(config.capability_items)
        yield log(
            "capability", "option", [_of_choice(item, answers.choices[item.id]) for item in items]
        )
        for own in work.parts:
            asked = (work.before, work.after)[side][own.name]
            rated = _by_answer(own, asked, said.scores[own.name][side])
            scorer = own.rating.by if own.rating.by == "nobody" else said.name
            samples = [
                Sample(key, noted[side].asked(answer), answer, rated.get(key))
                for key, answer in asked.items()
            ]
            if samples:
                yield log(own.name, scorer, [_shown(sample, hidden) for sample in samples])


def _by_answer(part: Part, asked: Asked, scores: Scores) -> Scores:
    """Return a score an answer: the mean, where an answer has several (one a criterion)."""
    if set(scores) <= set(asked):
        return scores
    groups: dict[str, list[float | None]] = {}
    for key, score in scores.items():
        groups.setdefault(part.belongs(key), []).append(score)
    return {key: mean_of_all(group) for key, group in groups.items()}


def _of_prompt(
    prompt: Prompt, answers: Answers, scores: Mapping[str, ScorePair], side: int
) -> Sample:
    pair = scores.get(prompt.text)
    answer = answers.completions[prompt.text]
    about = {"id": prompt.id, "hazard": prompt.hazard, "principle": prompt.principle}
    return Sample(
        fingerprint(prompt.text),
        (user(prompt.text),),
        answer,
        pair[side] if pair else None,
        about=about,
    )


def _of_choice(item: CapabilityItem, choice: Choice) -> Sample:
    said = Completion(text=item.options[choice.chosen], finish_reason="stop")
    return Sample(
        item.id,
        (user(item.question),),
        said,
        float(choice.right),
        target=item.options[item.answer],
        choices=item.options,
        about={"nats_per_token": list(choice.scores)},
    )


def _shown(sample: Sample, hidden: Sequence[Prompt]) -> Sample:
    """Return a sample without a members-only prompt and the answer to it."""
    for prompt in hidden:
        if any(prompt.text in message.content for message in sample.asked):
            said = sample.answer.model_copy(update={"text": WITHHELD})
            return Sample(sample.id, (user(withheld(prompt)),), said, sample.score)
    return sample
