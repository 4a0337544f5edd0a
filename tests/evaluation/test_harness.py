"""lm-evaluation-harness asks an engine, and its grades are paired; needs the extra `capability`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

pytest.importorskip("lm_eval", reason="lm-evaluation-harness (extra 'capability') is not installed")

from ccai_core.errors import DataError
from ccai_core.evaluation.capability import capability_items
from ccai_core.evaluation.counted import silent
from ccai_core.evaluation.harness import Harness, load_tasks
from ccai_core.evaluation.harness_model import EngineModel
from ccai_core.evaluation.parts import Findings, Outcome
from ccai_core.types import Call, Completion

# The harness alone takes five seconds to import.
pytestmark = pytest.mark.slow
ITEMS = 12
TASKS = ("ccai_arithmetic", "ccai_instructions")
RIGHT = {f" {item.options[item.answer]}" for item in capability_items()}


class Knower:
    """Finds right options likely, or unlikely; a character is a token."""

    model, dtype = "knower@1", "float32"

    def __init__(self, knows: bool) -> None:
        self.likes = 1.0 if knows else -1.0

    async def choose(self, *_: object) -> list[float]:
        raise AssertionError

    async def text_logprob(self, text: str) -> tuple[float, int]:
        stem, _, _ = text.partition("\nAnswer:")
        own = next((i for i in capability_items() if i.question in stem), None)
        right = own is not None and text.endswith(f" {own.options[own.answer]}")
        return -float(len(text)) + (100 * self.likes if right else 0.0), len(text)

    async def generate(self, call: Call) -> Completion:
        if "broken" in call.messages[-1].content:
            return Completion(text="", finish_reason="error")
        return Completion(text="12\n\nQuestion: another", finish_reason="stop")


def outcome(part: Harness, engine: Knower) -> Outcome:
    async def run() -> Outcome:
        asked = await part.ask(engine, silent)
        return Outcome(asked, await part.judge(None, asked, silent))  # type: ignore[arg-type]

    return asyncio.run(run())


def compared(before: bool, after: bool) -> Findings:
    part = Harness(TASKS, ITEMS, seed=0)
    return part.findings(outcome(part, Knower(before)), outcome(part, Knower(after)))


def test_a_model_that_forgot_everything_is_found_on_each_shipped_task() -> None:
    metrics = compared(before=True, after=False).metrics
    assert [m.id for m in metrics] == [f"capability.harness.{task}" for task in TASKS]
    for metric in metrics:
        assert metric.n == ITEMS
        assert metric.baseline.estimate == 1
        assert metric.trained.estimate == 0
        assert metric.difference.high < -0.5
        assert metric.p_value == pytest.approx(2 * 0.5**ITEMS)


def test_the_shipped_tasks_are_the_shipped_items() -> None:
    own = load_tasks(["ccai_commonsense"])["ccai_commonsense"]
    items = [item for item in capability_items() if item.task == "commonsense"]
    (task,) = own.values()
    assert [doc["id"] for doc in task.test_docs()] == [item.id for item in items]


def test_answers_end_at_the_stop_word_and_failed_ones_are_no_wrong_ones() -> None:
    from lm_eval.api.instance import Instance

    def asked(text: str, doc: int) -> Instance:
        arguments = (text, {"until": ["\n\n"], "max_gen_toks": 8})
        return Instance("generate_until", {}, arguments, 0, ("gsm8k", doc, 1))

    async def run() -> tuple[Sequence[str], set[str]]:
        model = EngineModel(Knower(True), asyncio.get_running_loop(), silent)
        model.task = "gsm8k"
        requests = [asked("5 + 7?", 0), asked("broken", 1)]
        return await asyncio.to_thread(model.generate_until, requests), model.failed

    answers, failed = asyncio.run(run())
    assert answers == ["12", ""]
    assert failed == {"gsm8k/gsm8k/1"}


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"no task 'ccai_aritmetic'.*ccai_arithmetic"):
        load_tasks(["ccai_aritmetic"])


def test_a_task_of_the_hub_is_refused_or_left_out_where_there_is_no_network() -> None:
    code = (
        "from ccai_core.errors import DataError\n"
        "from ccai_core.evaluation.harness import load_tasks\n"
        "try: load_tasks(['gsm8k'])\n"
        "except DataError as error: print('refused:', error)\n"
        "missing = {}\n"
        "found = load_tasks(['gsm8k', 'ccai_arithmetic'], missing)\n"
        "print('found', *found, 'left out', *missing)"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | offline
    )
    assert "refused: harness_tasks: the data of 'gsm8k' is on the hub" in shown.stdout, shown.stderr
    assert "found ccai_arithmetic left out gsm8k" in shown.stdout


def test_a_task_that_the_suite_named_and_that_cannot_be_had_is_noted() -> None:
    part = Harness((*TASKS, "gsm8k"), ITEMS, seed=0, optional=True)
    part.missing["gsm8k"] = "Its data is away."
    found = part.findings(Outcome({}, {}), Outcome({}, {}))
    assert found.notes == ("gsm8k was left out. Its data is away.",)
    assert len(found.too_few) == len(TASKS)
