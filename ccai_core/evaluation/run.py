"""Evaluate a trained model against its baseline: a plain function that runs in any job.

Reads models and training pairs, writes `evaluation.json`, `progress.json` and logs for Inspect into
its folder. Only one model is in memory at a time, in fp32: bf16 shifts the log-probabilities of
both models by more than short training does. Everything asked is journaled; killed at any time and
called again with the same arguments, it repeats nothing that was finished.

    request = EvaluationRequest(baseline=base, trained=trained, pairs=Path("pairs-3f2a"))
    result = evaluate(request, out=Path("evaluation"), journal=Path("evaluation/journal.jsonl"))
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution, load_constitutional_config
from ccai_core.engines import Engine, LocalEngines, OpenEngine
from ccai_core.errors import ModelError
from ccai_core.evaluation.capability import capability_items, perplexity_paragraphs
from ccai_core.evaluation.compare import compare, with_parts
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.evaluation.head_to_head import head_to_head_table
from ccai_core.evaluation.inspect_log import write_logs
from ccai_core.evaluation.inspect_samples import Noted, logs_of
from ccai_core.evaluation.items import EvaluationItems, select_items, texts_trained_on
from ccai_core.evaluation.judge import (
    JudgedSafety,
    SafetyRater,
    calibrate,
    labelled_replies,
    with_guard,
)
from ccai_core.evaluation.judging import Opinion, Work, by_judge, opinion_of
from ccai_core.evaluation.panel import agreement_table, alone_table, together
from ccai_core.evaluation.parts import Asked, Findings, Judges, Outcome, Part
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.evaluation.suite import Answers, answer
from ccai_core.evaluation.suites import SUITES, asked_by, left_out, suite_parts
from ccai_core.evaluation.teller import Teller
from ccai_core.files import write_whole
from ccai_core.journal import Journal, Recorded
from ccai_core.judges.guards import Guard, guard_format
from ccai_core.memory_estimate import read_shape
from ccai_core.models import ModelRef
from ccai_core.prompts.leaks import Trained, refuse_leaks
from ccai_core.prompts.scenarios import shipped_adversarial, shipped_scenarios
from ccai_core.prompts.splits import normalise
from ccai_core.types import Prompt, fingerprint

RESULT_FILE = "evaluation.json"
LOGS_FOLDER = "inspect"
# Known by their content, which is in the parts.
_IN_PARTS = (
    "mt_bench",
    "mt_bench_prompts",
    "baseline_verdicts",
    "trained_verdicts",
    "harness_tasks",
    "harness_items",
)
# What may differ in evaluations that ask the same, and what is only shown.
_OF_THE_MODELS = {"baseline", "trained", "trained_on", "examples", "include_restricted"}


class EvaluationRequest(Config):
    """Everything an evaluation is made from."""

    baseline: ModelRef = Field(description="The model before training.")
    trained: ModelRef = Field(description="The model after training.")
    judge: ModelRef | None = Field(None, description="The judging model; none: the baseline.")
    judges: tuple[ModelRef, ...] = Field((), description="Further judges, beside that one.")
    guard: ModelRef | None = Field(None, description="Rates safety; none: the judge does.")
    config: EvaluationConfig = Field(EvaluationConfig(), description="Sizes, sampling, seed.")
    constitution: Constitution = Field(
        default_factory=load_constitutional_config, description="Its criteria rate the answers."
    )
    pairs: Path | None = Field(None, description="The trained model's pairs, to refuse leaks.")
    ailuminate: tuple[Prompt, ...] = Field((), description="AILuminate prompts, if there are any.")
    scenarios: tuple[Prompt, ...] | None = Field(None, description="None: the shipped ones.")
    adversarial: tuple[Prompt, ...] | None = Field(None, description="None: the shipped ones.")

    @property
    def inputs(self) -> dict[str, Any]:
        """All that determines the result, by content; not where or how it is computed.

        Raises:
            DataError: the file of pairs cannot be read.
        """
        shipped = [
            [item.model_dump() for item in capability_items(self.config.capability_items)],
            perplexity_paragraphs(),
            [reply.model_dump() for reply in labelled_replies()],
        ]
        settings = self.config.model_dump(
            exclude={"judge", "judges", "guard", "batch_size", *_IN_PARTS}, mode="json"
        )
        parts = suite_parts(self.config, self.constitution, *self.prompts[:2])
        # Named only where there are any, so that evaluations by one judge stay what they were.
        panel = {"judges": ", ".join(j.identity for j in self.judges)} if self.judges else {}
        return {
            **settings,
            **panel,
            "baseline": self.baseline.identity,
            "trained": self.trained.identity,
            "judge": (self.judge or self.baseline).identity,
            "guard": self.guard.identity if self.guard else "",
            "parts": fingerprint([(part.name, part.identity) for part in parts]),
            "constitution": self.constitution.fingerprint,
            "trained_on": fingerprint(sorted({normalise(said.text) for said in self.trained_on})),
            "prompts": prompts_hash(*self.prompts),
            "shipped_items": fingerprint(shipped),
        }

    @property
    def panel(self) -> tuple[ModelRef, ...]:
        """All judges, the first one first; each once."""
        named = (self.judge or self.baseline, *self.judges)
        return tuple({model.identity: model for model in named}.values())

    @property
    def prompts(self) -> tuple[Sequence[Prompt], Sequence[Prompt], Sequence[Prompt]]:
        """AILuminate prompts, scenarios and adversarial requests to choose from."""
        return (
            self.ailuminate,
            shipped_scenarios() if self.scenarios is None else self.scenarios,
            shipped_adversarial() if self.adversarial is None else self.adversarial,
        )

    @property
    def trained_on(self) -> tuple[Trained, ...]:
        """What users say in the training pairs."""
        return texts_trained_on(self.pairs) if self.pairs else ()


def evaluate(
    request: EvaluationRequest, out: Path, journal: Path, engines: OpenEngine | None = None
) -> EvaluationResult:
    """Run the suite on `engines` (none: in this process) and write `out/evaluation.json`.

    Raises:
        DataError: an evaluation prompt was trained on, or too few prompts are held out.
        ModelError: a model cannot be loaded.
        ArtifactError: `out` cannot be written, or another process has the journal open.
    """
    began = time.monotonic()
    teller = Teller(out)
    items = select_items(request.config, *request.prompts, request.trained_on)
    parts = suite_parts(request.config, request.constitution, *request.prompts[:2])
    refuse_leaks(request.trained_on, asked_by(parts))
    teller.say(
        f"Evaluating {request.trained.identity} against {request.baseline.identity}: "
        f"{len(items.texts)} prompts."
    )
    result = asyncio.run(
        _evaluate(
            request, items, parts, journal, out / LOGS_FOLDER, engines or LocalEngines(), teller
        )
    )
    models = (request.baseline, request.trained)
    notices = (request.baseline.notice, *(judge.notice for judge in request.panel))
    result = result.model_copy(
        update={
            "notes": (*dict.fromkeys(filter(None, notices)), *result.notes),
            "asked": asked_of(request.inputs),
            "parameters": _parameters(models),
            "seconds": time.monotonic() - began,
        }
    )
    write_whole(out / RESULT_FILE, result.model_dump_json(indent=2) + "\n")
    teller.say(f"Evaluated in {result.seconds:.0f} s: {out / RESULT_FILE}")
    return result


def asked_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return of an evaluation's inputs what must be alike in results that are compared."""
    return {name: value for name, value in inputs.items() if name not in _OF_THE_MODELS}


def _parameters(models: Sequence[ModelRef]) -> dict[str, int]:
    """Count the weights of models by their files."""
    counts = {}
    for model in models:
        try:
            counts[model.identity] = read_shape(model.path).parameters
        except ModelError:
            # An engine can serve what is not laid out as we know it; its size is then not known.
            continue
    return counts


def prompts_hash(
    ailuminate: Sequence[Prompt],
    scenarios: Sequence[Prompt],
    adversarial: Sequence[Prompt] | None = None,
) -> str:
    """Return what an evaluation's inputs call the prompts to choose from."""
    requests = shipped_adversarial() if adversarial is None else adversarial
    return fingerprint([_contents(group) for group in (ailuminate, scenarios, requests)])


def _contents(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    return [prompt.model_dump() for prompt in prompts]


async def _evaluate(
    request: EvaluationRequest,
    items: EvaluationItems,
    parts: Sequence[Part],
    path: Path,
    logs: Path,
    engines: OpenEngine,
    teller: Teller,
) -> EvaluationResult:
    began = datetime.now(UTC)
    config, report = request.config, teller.report
    with Journal.open(path) as journal:

        @asynccontextmanager
        async def recorded(model: ModelRef) -> AsyncIterator[Engine]:
            async with engines(model, "fp32", config.batch_size) as engine:
                yield Recorded(engine, journal)

        noted: list[Noted] = []

        async def ask(model: ModelRef, which: str) -> tuple[Answers, dict[str, Asked]]:
            async with recorded(model) as engine:
                teller.model = which
                noted.append(Noted(engine))
                answers = await answer(engine, items, config, report)
                asks = ((part.name, part.ask(noted[-1], report)) for part in parts)
                return answers, {name: await asked for name, asked in asks}

        baseline, before = await ask(request.baseline, "baseline")
        trained, after = await ask(request.trained, "trained")
        work = Work(
            items, request.constitution, baseline, trained, parts, before, after,
            compared=SUITES[config.suite].head_to_head,
        )  # fmt: skip
        opinions = [
            await _opinion(request, number, work, recorded, teller)
            for number in range(len(request.panel))
        ]
    said = together(opinions, parts)
    restricted = [prompt for prompt in request.ailuminate if prompt.restricted]
    write_logs(logs_of(config, work, said, noted, restricted, began, datetime.now(UTC)), logs)
    result = compare(items, request.constitution, baseline, trained, said.judged, config)
    tables = (
        head_to_head_table(said.duels, len(items.scenarios), config.seed, by_judge(opinions)),
        agreement_table(opinions, parts, config.seed),
        alone_table(said.judged.card),
    )
    found = [
        part.findings(
            *(Outcome(asked[part.name], scores) for asked, scores in
              zip((before, after), said.scores[part.name], strict=True))
        )
        for part in parts
    ]  # fmt: skip
    return with_parts(
        result, [Findings(tables=tuple(filter(None, tables))), *found], left_out(config, parts)
    )


async def _opinion(
    request: EvaluationRequest,
    number: int,
    work: Work,
    recorded: Callable[[ModelRef], AbstractAsyncContextManager[Engine]],
    teller: Teller,
) -> Opinion:
    """Open, calibrate and ask one judge, with the guard beside the first one."""
    guard = request.guard if number == 0 else None
    replies = labelled_replies()
    async with AsyncExitStack() as opened:
        engine = await opened.enter_async_context(recorded(request.panel[number]))
        teller.model = "judge" if len(request.panel) == 1 else f"judge {number + 1}"
        teller.report("calibration", 0, 1)
        judge, card = await calibrate(engine, engine.model, request.constitution, replies)
        teller.report("calibration", 1, 1)
        safety: SafetyRater = JudgedSafety(judge, engine.model)
        if guard is not None:
            form = guard_format(guard.name, request.config.guard_format)
            safety = Guard(await opened.enter_async_context(recorded(guard)), form)
            card = await with_guard(card, safety, replies)
        judges = Judges(engine, judge, safety)
        return await opinion_of(
            judges, card, work, teller.report, first=number == 0, guarded=request.guard is not None
        )
