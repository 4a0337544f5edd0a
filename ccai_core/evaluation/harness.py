"""lm-evaluation-harness as a part of a suite: its tasks, asked of any engine, paired by item.

The harness makes the questions and grades the answers; ours are the engine, the journal and the
intervals. It is optional: pip install 'ccai-platform[capability]'. Our own items are there in its
format, for use offline; `lm_eval --include_path ccai_core/resources/evaluation/harness` knows them
too. Other tasks come from the hub.

    part = Harness(("ccai_arithmetic", "gsm8k"), items=200, seed=0)
    asked = await part.ask(engine, report)
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from typing import Any, cast

from ccai_core.engines import Engine
from ccai_core.errors import DataError, did_you_mean
from ccai_core.evaluation.counted import Report
from ccai_core.evaluation.parts import (
    UNRATED,
    About,
    Asked,
    Findings,
    Judges,
    Outcome,
    Rating,
    Scores,
    collected,
    mean_metric,
    paired,
    share_metric,
)
from ccai_core.evaluation.results import Metric
from ccai_core.types import Completion

# What a task is known by, in this order: MMLU acc, HellaSwag and ARC acc_norm, GSM8K exact_match.
_GRADES = ("prompt_level_strict_acc", "exact_match", "acc_norm", "acc")
INSTALL = "pip install 'ccai-platform[capability]'"


@dataclass(frozen=True)
class Harness:
    """The part: tasks of lm-evaluation-harness; groups such as mmlu count as one task.

    Args:
        tasks: names of tasks or groups.
        items: most items of each task; none takes all.
        seed: of the intervals.
        optional: the suite named the tasks, not the user; one that cannot be had is left out and
            noted instead of refused.
        missing: why tasks were left out, by name; noted while they are asked.
    """

    tasks: tuple[str, ...]
    items: int | None
    seed: int
    optional: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    name: str = "harness"
    rating: Rating = UNRATED

    @property
    def calls(self) -> int:
        """None that are known before: the harness knows its items only when it has read them."""
        return 0

    @property
    def most_tokens(self) -> int:
        """The same."""
        return 0

    @property
    def judged(self) -> int:
        """None: the harness grades by itself."""
        return 0

    @property
    def identity(self) -> Any:
        """Tasks, items of each, and the harness's version."""
        return [self.tasks, self.items, version("lm-eval")]

    async def ask(self, engine: Engine, report: Report) -> Asked:
        """Let the harness ask a model; each item's completion holds the grade that it gave.

        Raises:
            DataError: a task that was asked for is unknown, or its data is on the hub and that
                cannot be reached.
        """
        from ccai_core.evaluation.harness_model import EngineModel

        model = EngineModel(engine, asyncio.get_running_loop(), report)
        missing = self.missing if self.optional else None
        tasks = await asyncio.to_thread(load_tasks, self.tasks, missing)
        graded = await asyncio.to_thread(_run, model, tasks, self.items)
        return {
            key: Completion(
                text="" if key in model.failed else repr(grade),
                finish_reason="error" if key in model.failed else "stop",
                model=engine.model,
            )
            for key, grade in graded.items()
        }

    async def judge(self, judges: Judges, asked: Asked, report: Report) -> Scores:
        """Read the grades; no judge is asked."""
        return {
            key: float(answer.text) if answer.finish_reason == "stop" else None
            for key, answer in asked.items()
        }

    def belongs(self, key: str) -> str:
        """Every item stands for itself."""
        return key

    def findings(self, before: Outcome, after: Outcome) -> Findings:
        """Compare two models task by task."""
        return collected(
            [
                self._metric(task, before.scores, after.scores)
                for task in self.tasks
                if task not in self.missing
            ],
            notes=[f"{task} was left out. {why}" for task, why in self.missing.items()],
        )

    def _metric(self, task: str, before: Scores, after: Scores) -> Metric | About:
        own = {key: grade for key, grade in before.items() if key.startswith(f"{task}/")}
        pairs, excluded = paired(own, after)
        about = About(
            f"capability.harness.{task}",
            f"{task} (lm-evaluation-harness)",
            "capability",
            f"Items of {task} that lm-evaluation-harness {version('lm-eval')} grades as right.",
        )
        if all(grade in (0.0, 1.0) for pair in pairs.values() for grade in pair):
            shares = [(bool(was), bool(now)) for was, now in pairs.values()]
            return share_metric(about, shares, excluded, keys=list(pairs))
        return mean_metric(about, list(pairs.values()), excluded, self.seed, keys=list(pairs))


def harness_installed() -> bool:
    """Whether lm-evaluation-harness is there."""
    return importlib.util.find_spec("lm_eval") is not None


def require_harness() -> None:
    """Refuse early where the harness is not installed.

    Raises:
        DataError: it is not.
    """
    if not harness_installed():
        raise DataError(
            f"harness_tasks needs lm-evaluation-harness, which is not installed: {INSTALL}"
        )


def load_tasks(
    names: Sequence[str], missing: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the harness's tasks by the name that was asked for, and by their own below it.

    Args:
        names: tasks or groups.
        missing: is told why a task's data cannot be had; none: that is an error.

    Raises:
        DataError: a name is unknown, or a task's data cannot be had.
    """
    from lm_eval.tasks import TaskManager

    shipped = files("ccai_core.resources") / "evaluation" / "harness"
    # Reading the harness's own 14,000 files takes up to minutes; the shipped tasks need none.
    manager = TaskManager(include_path=str(shipped), include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=str(shipped))
    known = set(manager.all_tasks)
    for name in names:
        if name not in known:
            raise DataError(f"harness_tasks: there is no task '{name}'.{did_you_mean(name, known)}")
    found = {}
    for name in names:
        try:
            found[name] = _load(manager, name)
        except DataError as error:
            if missing is None:
                raise
            missing[name] = str(error)
    return found


def _load(manager: Any, name: str) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], manager.load([name])["tasks"])
    except ModuleNotFoundError as error:
        raise DataError(
            f"harness_tasks: '{name}' needs the package '{error.name}', which is not installed: "
            f"{INSTALL}"
        ) from error
    except Exception as error:
        if not _is_unreachable(error):
            raise
        raise DataError(
            f"harness_tasks: the data of '{name}' is on the hub, which cannot be reached from here "
            f"({type(error).__name__}). Run it once where the network is and copy the cache of "
            "`datasets`, or take the shipped tasks: ccai_arithmetic, ccai_commonsense, "
            "ccai_instructions."
        ) from error


def _is_unreachable(error: BaseException) -> bool:
    # datasets and the hub's client raise these, or wrap them, when there is no network.
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    kinds = (
        ConnectionError,
        TimeoutError,
        DatasetNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )
    cause = error.__cause__ or error.__context__
    return isinstance(error, kinds) or (cause is not None and _is_unreachable(cause))


def _run(model: Any, tasks: Mapping[str, Mapping[str, Any]], items: int | None) -> dict[str, float]:
    """Return the grade of every item, keyed "asked task/own task/item"."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    # The tasks are loaded; without a manager it would read all of its own files for each.
    manager = TaskManager(include_defaults=False)
    graded: dict[str, float] = {}
    for asked, own in tasks.items():
        model.task = asked
        found = simple_evaluate(
            model=model,
            tasks=list(own.values()),
            limit=items,
            bootstrap_iters=0,
            task_manager=manager,
        )
        for name, samples in found["samples"].items():
            for sample in samples:
                # A task with several filters gives an item several times; its first one counts.
                key = f"{asked}/{name}/{sample['doc_id']}"
                graded.setdefault(key, _grade(name, sample))
    return graded


def _grade(task: str, sample: Mapping[str, Any]) -> float:
    for name in _GRADES:
        if name in sample:
            return float(sample[name])
    raise DataError(
        f"harness_tasks: '{task}' has none of the grades {', '.join(_GRADES)} for each of its "
        "items, so two models cannot be paired on it. Take another task."
    )
