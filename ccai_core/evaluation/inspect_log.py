"""Evaluation logs in Inspect's JSON format (version 2), which `inspect view` opens.

Written by hand, from the fields of inspect_ai's EvalLog: the package itself wants a newer fsspec
than the data libraries here allow. One log is one part of a suite, asked of one model; its samples
are the items. Prompts in a log may be harmful by design; its metadata says so.

    write_logs([Log(part="safety", model="m@1", samples=samples, ...)], folder)
    # inspect view --log-dir FOLDER
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ccai_core.files import write_whole
from ccai_core.types import Completion, FinishReason, Message, fingerprint

LOG_VERSION = 2
CONTENT_WARNING = (
    "Prompts and answers in this log may be harmful or offensive: the evaluation asks on purpose "
    "what a safe model declines."
)
_STOPS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "max_tokens",
    "filtered": "content_filter",
    "error": "unknown",
}


@dataclass(frozen=True)
class Sample:
    """One item that a model was asked.

    Args:
        id: unique in its log.
        asked: the conversation up to the answer.
        answer: what the model said.
        score: what that is worth; None is no score, never a default.
        target: the right answer, where there is one.
        choices: options, where there are any.
        about: anything else, JSON-like.
    """

    id: str
    asked: Sequence[Message]
    answer: Completion
    score: float | None
    target: str = ""
    choices: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Log:
    """One part of a suite, asked of one model.

    Args:
        part: its name, e.g. 'safety'.
        suite: the suite.
        which: 'baseline' or 'trained'.
        model: identity of the model.
        scorer: who scored: the judge, or 'option' where none is needed.
        samples: the items.
        settings: how answers were drawn.
        began: when the evaluation was started, with its time zone.
        ended: when it was finished.
    """

    part: str
    suite: str
    which: str
    model: str
    scorer: str
    samples: Sequence[Sample]
    settings: Mapping[str, Any]
    began: datetime
    ended: datetime

    @property
    def identity(self) -> str:
        """The same log has the same."""
        ids = [sample.id for sample in self.samples]
        return fingerprint([self.suite, self.part, self.which, self.model, self._when, ids], 22)

    @property
    def file(self) -> str:
        """A name as Inspect gives: it lists only files that begin with a time."""
        when = self._when.replace(":", "-").replace("+", "-")
        return f"{when}_{self.part.replace('_', '-')}-{self.which}_{self.identity}.json"

    @property
    def _when(self) -> str:
        return self.began.isoformat(timespec="seconds")


def write_logs(logs: Iterable[Log], folder: Path) -> None:
    """Write each log whole or not at all, instead of those that an interrupted run left.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    for old in folder.glob("*.json"):
        old.unlink()
    for log in logs:
        write_whole(folder / log.file, json.dumps(as_json(log), ensure_ascii=False, indent=1))


def as_json(log: Log) -> dict[str, Any]:
    """Return the log as Inspect reads it."""
    scored = [sample.score for sample in log.samples if sample.score is not None]
    return {
        "version": LOG_VERSION,
        "status": "success",
        "eval": _spec(log),
        "plan": {
            "name": "plan",
            "steps": [{"solver": "generate", "params": dict(log.settings)}],
            "config": {},
        },
        "results": {
            "total_samples": len(log.samples),
            "completed_samples": len(log.samples),
            "scores": [
                {
                    "name": log.part,
                    "scorer": log.part,
                    "scored_samples": len(scored),
                    "unscored_samples": len(log.samples) - len(scored),
                    "params": {},
                    "metrics": _metrics(scored),
                }
            ],
        },
        "stats": {
            "started_at": log.began.isoformat(timespec="seconds"),
            "completed_at": log.ended.isoformat(timespec="seconds"),
            "model_usage": {log.model: _usage([sample.answer for sample in log.samples])},
        },
        "samples": [_sample(sample, log) for sample in log.samples],
    }


def _spec(log: Log) -> dict[str, Any]:
    ids = [sample.id for sample in log.samples]
    return {
        "eval_id": log.identity,
        "run_id": fingerprint([log.suite, log.began.isoformat()], 22),
        "task_id": fingerprint([log.suite, log.part, log.which], 22),
        "created": log.began.isoformat(timespec="seconds"),
        "task": f"{log.suite}/{log.part}",
        "task_display_name": f"{log.part.replace('_', ' ')} ({log.which} model)",
        "task_version": 0,
        "task_args": {"model": log.which},
        "dataset": {"name": log.part, "samples": len(ids), "sample_ids": ids, "shuffled": False},
        "model": log.model,
        "model_args": {},
        "config": {"epochs": 1, "log_samples": True},
        "packages": {},
        "tags": [log.suite, log.which],
        "metadata": {"content_warning": CONTENT_WARNING, "scorer": log.scorer},
        "scorers": [{"name": log.part, "options": {"scorer": log.scorer}, "metadata": {}}],
    }


def _metrics(scored: Sequence[float]) -> dict[str, Any]:
    """Return mean and standard error; nothing where nothing was scored."""
    if not scored:
        return {}
    n = len(scored)
    mean = math.fsum(scored) / n
    found = {"mean": mean}
    if n > 1:
        spread = math.fsum((value - mean) ** 2 for value in scored) / (n - 1)
        found["stderr"] = math.sqrt(spread / n)
    return {name: {"name": name, "value": value, "params": {}} for name, value in found.items()}


def _sample(sample: Sample, log: Log) -> dict[str, Any]:
    turns = [
        {"id": f"{sample.id}-{number}", "role": m.role, "content": m.content, "source": "input"}
        for number, m in enumerate(sample.asked)
    ]
    said = {
        "id": f"{sample.id}-answer",
        "role": "assistant",
        "content": sample.answer.text,
        "source": "generate",
        "model": log.model,
    }
    found: dict[str, Any] = {
        "id": sample.id,
        "epoch": 1,
        "input": turns,
        "target": sample.target,
        "messages": [*turns, said],
        "output": {
            "model": log.model,
            "choices": [{"message": said, "stop_reason": _STOPS[sample.answer.finish_reason]}],
            "completion": sample.answer.text,
            "usage": _usage([sample.answer]),
        },
        "scores": {},
        "metadata": {**sample.about, "finish_reason": sample.answer.finish_reason},
        "model_usage": {log.model: _usage([sample.answer])},
    }
    if sample.choices:
        found["choices"] = list(sample.choices)
    if sample.score is not None:
        found["scores"][log.part] = {"value": sample.score, "answer": sample.answer.text}
    return found


def _usage(answers: Sequence[Completion]) -> dict[str, int]:
    read = sum(answer.prompt_tokens for answer in answers)
    written = sum(answer.completion_tokens for answer in answers)
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
