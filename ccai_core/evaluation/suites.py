"""The suites by name: which parts each has, and how large they are.

Every suite has the poc measures: safety, contemplative criteria, capability, perplexity. A part is
its prompts, generation settings, scorers and sums (`parts.py`); a suite is a list of parts.

    parts = suite_parts(config, constitution, hazards)
    print(list_suites())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from ccai_core.config import Config
from ccai_core.constitution import Constitution
from ccai_core.errors import DataError
from ccai_core.evaluation.attacks import system_prompts
from ccai_core.evaluation.benchmark import Benchmark
from ccai_core.evaluation.config import EvaluationConfig, SuiteName
from ccai_core.evaluation.cooperation import Cooperation, conditions
from ccai_core.evaluation.criteria import Criteria
from ccai_core.evaluation.effects import detectable_share
from ccai_core.evaluation.evaluator_files import read_evaluator_file
from ccai_core.evaluation.harness import INSTALL, Harness, harness_installed, require_harness
from ccai_core.evaluation.items import spread
from ccai_core.evaluation.mt_bench import Helpfulness
from ccai_core.evaluation.mt_bench_files import MTBench, read_mt_bench
from ccai_core.evaluation.parts import Part
from ccai_core.evaluation.robustness import OverRefusal, Robustness
from ccai_core.evaluation.standards import reference_standard
from ccai_core.prompts.fetch import data_directory
from ccai_core.prompts.scenarios import shipped_adversarial, shipped_benign
from ccai_core.types import Prompt

PartName = Literal[
    "criteria", "robustness", "over-refusal", "cooperation", "helpfulness", "benchmark"
]


class Suite(Config):
    """What is measured under one name."""

    name: SuiteName = Field(description="Key.")
    about: str = Field(description="When to take it.")
    parts: tuple[PartName, ...] = Field((), description="Beside the poc measures.")
    attack_prompts: int = Field(8, description="Requests that every attack is tried on.")
    benign_prompts: int = Field(40, description="Harmless requests that look harmful.")
    games: int = Field(2, description="Prisoner's dilemmas against each opponent.")
    harness_tasks: tuple[str, ...] = Field((), description="Of lm-evaluation-harness.")
    harness_items: int | None = Field(None, description="Most items of each; none takes all.")
    head_to_head: bool = Field(False, description="Ask which model's answer is better.")


# What the plan names: knowledge, sums, common sense, science, truth, instructions.
_PLAN_TASKS = ("mmlu", "gsm8k", "hellaswag", "arc_challenge", "truthfulqa_mc1", "ifeval")
_NO_TASKS = ("none",)

SUITES: dict[SuiteName, Suite] = {
    suite.name: suite
    for suite in (
        Suite(name="poc", about="Minutes on a laptop: what a proof of concept shows."),
        Suite(
            name="full",
            about="Adds attacks, harmless requests, the prisoner's dilemma, MT-Bench where its "
            "files are, and lm-evaluation-harness where it is installed.",
            parts=("criteria", "robustness", "over-refusal", "cooperation", "helpfulness"),
            head_to_head=True,
            harness_tasks=_PLAN_TASKS,
            harness_items=50,
        ),
        Suite(
            name="comprehensive",
            about="The same on many more items, and AILuminate-style grades where its prompts are "
            "given.",
            parts=(
                "criteria",
                "robustness",
                "over-refusal",
                "cooperation",
                "helpfulness",
                "benchmark",
            ),
            head_to_head=True,
            harness_tasks=_PLAN_TASKS,
            attack_prompts=48,
            benign_prompts=120,
            games=10,
        ),
        Suite(
            name="official",
            about="AILuminate as modelbench runs it, on the test side of the given prompts; grades "
            "are official only with verdicts of MLCommons' evaluator.",
            parts=("benchmark",),
        ),
    )
}


def list_suites() -> str:
    """Say what every suite measures, a paragraph each."""
    lines = []
    for suite in SUITES.values():
        blind = ("head to head",) if suite.head_to_head else ()
        parts = ", ".join(("poc measures", *blind, *suite.parts))
        lines += [f"{suite.name:<14} {suite.about}", f"{'':<14} {parts}"]
        if suite.harness_tasks:
            lines.append(f"{'':<14} harness: {' '.join(suite.harness_tasks)}")
    return "\n".join(lines)


def suite_parts(
    config: EvaluationConfig,
    constitution: Constitution,
    hazards: Sequence[Prompt],
    scenarios: Sequence[Prompt] = (),
) -> list[Part]:
    """Return the parts of the chosen suite with all that they ask.

    Args:
        config: suite and sizes.
        constitution: its principles and criteria.
        hazards: AILuminate prompts, where there are any.
        scenarios: contemplative scenarios to choose from.

    Raises:
        DataError: MT-Bench or evaluator files cannot be used, or the suite `official` was chosen
            and no AILuminate prompts were given.
    """
    suite = SUITES[config.suite]
    makers: dict[PartName, Callable[[], Part | None]] = {
        "criteria": lambda: _criteria(config, constitution, scenarios),
        "robustness": lambda: _robustness(config, suite, constitution),
        "over-refusal": lambda: _over_refusal(config, suite),
        "cooperation": lambda: Cooperation(
            conditions(constitution), config.games or suite.games, config.seed
        ),
        "helpfulness": lambda: _helpfulness(config),
        "benchmark": lambda: _benchmark(config, hazards),
    }
    parts = (makers[name]() for name in suite.parts)
    return [part for part in (*parts, _harness(config)) if part is not None]


def asked_by(parts: Sequence[Part]) -> list[Prompt]:
    """Return every prompt that parts ask, to be checked for leaks."""
    found = (prompt for part in parts for prompt in getattr(part, "prompts", ()))
    return list(dict.fromkeys(found))


def left_out(config: EvaluationConfig, parts: Sequence[Part]) -> list[str]:
    """Say which parts of the suite are not measured, and why."""
    there = {part.name for part in parts}
    wanted = SUITES[config.suite].parts
    why = []
    if "criteria" in wanted and "criteria" not in there:
        why.append(
            "Grades by criterion were left out: no scenario is of a principle of this "
            "constitution that has criteria."
        )
    if "helpfulness" in wanted and "helpfulness" not in there:
        why.append("MT-Bench was left out: its files were not given (--mt-bench).")
    if "benchmark" in wanted and "benchmark" not in there:
        why.append("AILuminate-style grades were left out: no AILuminate prompts were given.")
    tasks = SUITES[config.suite].harness_tasks
    if tasks and "harness" not in there:
        reason = (
            "that was asked for (none)"
            if config.harness_tasks == _NO_TASKS
            else f"it is not installed ({INSTALL})"
        )
        why.append(f"lm-evaluation-harness ({', '.join(tasks)}) was left out: {reason}.")
    return why


def suite_lines(
    config: EvaluationConfig,
    constitution: Constitution,
    hazards: Sequence[Prompt],
    scenarios: Sequence[Prompt] = (),
) -> list[str]:
    """Say before a run what the suite asks, and how large a change it would find at all."""
    parts = suite_parts(config, constitution, hazards, scenarios)
    asked = "".join(f", {part.name}{_size(part)}" for part in parts)
    share = detectable_share(config.safety_prompts)
    return [
        f"suite       {config.suite}: poc measures{asked}",
        *(f"{'':<12}{why}" for why in left_out(config, parts)),
        f"detectable  a change of {100 * share:.0f} points in safe answers, in 4 of 5 such "
        "evaluations (if a fifth of the answers change)",
    ]


def _size(part: Part) -> str:
    if isinstance(part, Harness):
        most = f", at most {part.items} items of each" if part.items else ""
        return f" ({' '.join(part.tasks)}{most})"
    return f" ({part.calls} answers)" if part.calls else ""


def _harness(config: EvaluationConfig) -> Harness | None:
    suite = SUITES[config.suite]
    if config.harness_tasks == _NO_TASKS:
        return None
    if config.harness_tasks:
        require_harness()
        return Harness(config.harness_tasks, config.harness_items, config.seed)
    if suite.harness_tasks and harness_installed():
        items = config.harness_items or suite.harness_items
        return Harness(suite.harness_tasks, items, config.seed, optional=True)
    return None


def _criteria(
    config: EvaluationConfig, constitution: Constitution, scenarios: Sequence[Prompt]
) -> Criteria | None:
    rated = {p.id for p in constitution.principles if p.criteria}
    chosen = spread(scenarios, config.scenario_prompts, config.seed)
    prompts = [prompt for prompt in chosen if prompt.principle in rated]
    return Criteria(prompts, constitution, config.sampling, config.seed) if prompts else None


def _robustness(config: EvaluationConfig, suite: Suite, constitution: Constitution) -> Robustness:
    count = config.attack_prompts or suite.attack_prompts
    prompts = spread(shipped_adversarial(), count, config.seed)
    return Robustness(prompts, system_prompts(constitution), config.sampling, config.seed)


def _over_refusal(config: EvaluationConfig, suite: Suite) -> OverRefusal:
    count = config.benign_prompts or suite.benign_prompts
    return OverRefusal(spread(shipped_benign(), count, config.seed), config.sampling)


def _helpfulness(config: EvaluationConfig) -> Helpfulness | None:
    bench = mt_bench(config)
    return Helpfulness(bench, config.mt_bench_tokens, config.seed) if bench else None


def mt_bench(config: EvaluationConfig) -> MTBench | None:
    """Return MT-Bench where it was given, or is complete in the data directory."""
    if config.mt_bench is not None:
        return read_mt_bench(config.mt_bench, config.mt_bench_prompts)
    kept = data_directory() / "mt-bench"
    references = (kept / "reference_answer_gpt-4.jsonl", kept / "reference_answer" / "gpt-4.jsonl")
    if (kept / "question.jsonl").is_file() and any(path.is_file() for path in references):
        return read_mt_bench(kept, config.mt_bench_prompts)
    return None


def _benchmark(config: EvaluationConfig, hazards: Sequence[Prompt]) -> Benchmark | None:
    if not hazards:
        if config.suite == "official":
            raise DataError(
                "--suite official: needs AILuminate prompts. Give them with --prompts, e.g. "
                "--prompts ailuminate-demo, or your own file of the practice or official set."
            )
        return None
    standard = reference_standard(
        config.benchmark_version, config.benchmark_locale, config.benchmark_type
    )
    part = Benchmark(hazards, standard)
    files = {"baseline": config.baseline_verdicts, "trained": config.trained_verdicts}
    given = {which: path for which, path in files.items() if path is not None}
    if len(given) == 1:
        raise DataError(
            "--baseline-verdicts and --trained-verdicts go together: grades of two models are "
            "compared only when the same evaluator gave both."
        )
    if given:
        read = {which: read_evaluator_file(path, hazards) for which, path in given.items()}
        evaluators = {found.evaluator for found in read.values()}
        if len(evaluators) > 1:
            raise DataError(f"The verdicts are of two evaluators: {', '.join(sorted(evaluators))}.")
        part.given = {which: found.items for which, found in read.items()}
        part.evaluator = evaluators.pop()
    return part
