"""The command line of every flow, without running one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.exceptions import CancelledRun
from pydantic import BaseModel

from ccai_core.config import Config
from ccai_core.errors import ConfigError
from ccai_core.memory import ModelShape, plan
from ccai_core.prompts.scenarios import shipped_scenarios
from flows.cli import about_presets, parse, preset_names, preset_values, run_command
from flows.command import carried_over, command_for
from flows.config import (
    EvaluationFlowConfig,
    PoCConfig,
    PreferenceDataConfig,
    PrepareDataConfig,
    TrainingFlowConfig,
)
from flows.plan import plan_evaluation, plan_poc, plan_preferences, plan_training
from flows.preparation import plan_prepare
from flows.results import Summary
from flows.validation_config import ValidationConfig
from flows.validation_plan import plan_validation

FLOWS: dict[str, tuple[type[Config], Callable[[Any], str], list[str]]] = {
    "poc": (PoCConfig, plan_poc, []),
    "prepare_data": (PrepareDataConfig, plan_prepare, []),
    "preference_data": (PreferenceDataConfig, plan_preferences, []),
    "training": (TrainingFlowConfig, plan_training, ["--pairs", "pairs.jsonl"]),
    "evaluation": (EvaluationFlowConfig, plan_evaluation, ["--trained", "model"]),
    "validation": (ValidationConfig, plan_validation, ["--trained", "model"]),
}


def _qwen(hidden: int, layers: int, inner: int, keys: int) -> ModelShape:
    """Return the shape of a Qwen2.5 by its published configuration."""
    maps = [(hidden, hidden)] * 2 + [(hidden, keys)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]
    return ModelShape(
        parameters=layers * sum(a * b for a, b in maps) + 2 * 152_064 * hidden,
        layers=layers, hidden=hidden, vocabulary=152_064, context=32_768, dtype="BF16",
        linear_ends=layers * sum(a + b for a, b in maps),
        linear_outputs=layers * sum(b for _, b in maps),
    )  # fmt: skip


QWEN = {
    "Qwen/Qwen2.5-7B-Instruct": _qwen(3584, 28, 18_944, 512),
    "Qwen/Qwen2.5-14B-Instruct": _qwen(5120, 48, 13_824, 1024),
    "Qwen/Qwen2.5-32B-Instruct": _qwen(5120, 64, 27_648, 1024),
}


class Command:
    """One flow's command, with a flow that only notes its settings."""

    def __init__(self, capsys: pytest.CaptureFixture[str], flow: str = "poc") -> None:
        self.capsys, self.flow, self.ran = capsys, flow, []  # type: ignore[var-annotated]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        kind, plan, _ = FLOWS[self.flow]

        def run(config: Any) -> Summary:
            self.ran.append(config)
            return Summary(made={"report": "here"}, next_commands=("go on",))

        try:
            code = run_command(
                kind, run, plan, prog=f"python -m flows.{self.flow}", about="About.",
                arguments=arguments,
            )  # fmt: skip
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = self.capsys.readouterr()
        return code, out, err


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(capsys)


def refusal(command: Command, *arguments: str) -> str:
    """Return the one paragraph with which the command refuses."""
    code, out, err = command(*arguments)
    assert (code, command.ran) == (2, [])
    assert "Traceback" not in out + err
    assert err.strip()
    assert "http" not in err
    assert "\n\n" not in err.strip()
    return " ".join(err.split())


def settings_of(kind: type[Config], *arguments: str) -> Any:
    return parse(kind, "prog", "", arguments)[0]


# --- presets and precedence


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_suits_every_flow(flow: str, preset: str) -> None:
    kind, _, needed = FLOWS[flow]
    chosen = settings_of(kind, "--preset", preset, *needed)
    for key, value in preset_values(kind, preset).items():
        assert key in kind.model_fields
        if not isinstance(value, dict):
            # Paths are text in YAML.
            assert str(getattr(chosen, key)) == str(value)


def test_presets_hold_nothing_that_no_flow_knows() -> None:
    known = {name for kind, _, _ in FLOWS.values() for name in kind.model_fields}
    for name in preset_names():
        values = yaml.safe_load((Path("flows/presets") / f"{name}.yaml").read_text())
        assert set(values) <= known


PHASES = ("development", "scaling", "production-14b", "production-32b")


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_trains_as_the_method_says(phase: str) -> None:
    chosen = settings_of(PoCConfig, "--preset", phase)
    training = chosen.training
    assert (training.learning_rate, training.beta, training.warmup_ratio) == (1e-6, 0.1, 0.1)
    assert training.save_steps == 500
    # A 32B model is not replaced by one of 135M.
    assert chosen.fallback is False
    assert chosen.sft.epochs == 0
    started = settings_of(PoCConfig, "--preset", phase, "--sft.epochs", "1").sft
    assert (started.nodes, started.ranks) == (training.nodes, training.ranks)


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_fits_the_gpus_that_it_names(phase: str) -> None:
    chosen = settings_of(PoCConfig, "--preset", phase)
    shape = QWEN[chosen.model]
    for config in (chosen.training, chosen.sft.as_training()):
        fitting = plan(shape, config, 1500, "bf16", "cuda")
        assert (fitting.method, fitting.offload) == ("full", "none")
        assert fitting.total_mb <= 80_000


def test_what_was_checked_and_does_not_hold_ends_with_1(command: Command) -> None:
    kind, _, _ = FLOWS["poc"]
    for passed, code in ((True, 0), (False, 1)):
        found = Summary(made={"report": "here"}, findings=("said",), passed=passed)
        ended = run_command(
            kind, lambda _, found=found: found, lambda _: "plan", prog="x", about="", arguments=()
        )
        assert ended == code
        assert "said" in command.capsys.readouterr().out


def test_help_and_error_list_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        preset_values(PoCConfig, "massive")
    for name in preset_names():
        assert name in str(refused.value)
    code, out, _ = Command(capsys, "training")("--help")
    assert code == 0
    words = " ".join(re.sub(r"[│\s]+", " ", out).split())
    for line in about_presets().splitlines():
        assert line in words


def test_later_wins_default_preset_file_option(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("max_pairs: 9\ntraining: {learning_rate: 3.0e-6}\n")
    default = settings_of(PoCConfig)
    quick = settings_of(PoCConfig, "--preset", "quick")
    both = settings_of(PoCConfig, "--preset", "quick", "--config", str(mine))
    all_three = settings_of(
        PoCConfig, "--config", str(mine), "--training.learning-rate", "4e-6", "--preset", "quick"
    )
    shipped = preset_values(PoCConfig, "quick")
    assert shipped["max_pairs"] != default.max_pairs == PoCConfig().max_pairs
    assert [c.max_pairs for c in (quick, both, all_three)] == [shipped["max_pairs"], 9, 9]
    rates = [c.training.learning_rate for c in (quick, both, all_three)]
    assert rates == [shipped["training"]["learning_rate"], 3e-6, 4e-6]
    # A file that says one thing of a group leaves the group's others as the preset has them.
    assert {c.training.epochs for c in (quick, both, all_three)} == {shipped["training"]["epochs"]}
    assert both.evaluation == quick.evaluation != default.evaluation


def test_an_option_equal_to_the_default_still_wins_over_the_preset() -> None:
    assert settings_of(PoCConfig, "--preset", "quick", "--max-pairs", "500").max_pairs == 500


def test_what_a_flow_needs_may_come_from_the_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("pairs: some/pairs.jsonl\n")
    assert settings_of(TrainingFlowConfig, "--config", str(mine)).pairs == Path("some/pairs.jsonl")


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "qick"], "--preset qick: unknown. Did you mean 'quick'?"),
        (["--max-pair", "3"], "--max-pairs"),
        (["--max-pairs", "0"], "max_pairs: Input should be greater than or equal to 1 (got 0)"),
        (["--max-pairs", "many"], "--max-pairs"),
        (["--training.beta", "-1"], "Input should be greater than 0"),
        (["--device", "tpu"], "--device"),
        (["--config", "none.yaml"], "none.yaml: cannot be read"),
        (["--constitution", "none.md"], "Constitution none.md: cannot be read"),
        (["--prompts", "none.csv"], "none.csv: cannot be read"),
        (["--cluster", "locl"], "Unknown cluster 'locl'. Did you mean 'local'?"),
    ],
)
def test_a_wrong_option_is_refused_with_advice(
    command: Command, arguments: list[str], words: str
) -> None:
    assert words in refusal(command, *arguments)


FILES = {
    "key.yaml": ("max_pair: 3\n", "key.yaml: unknown key 'max_pair'. Did you mean 'max_pairs'?"),
    "inner.yaml": (
        "training: {epoch: 3}\n", "unknown key 'training.epoch'. Did you mean 'epochs'?"
    ),
    "form.yaml": ("a: [1\n", "form.yaml line 2: is not valid YAML"),
    "list.yaml": ("- 1\n", "must hold key: value lines"),
    "wrong.yaml": ("max_pairs: {a: 1}\n", "wrong.yaml: max_pairs:"),
    "header.csv": ("id,words\n1,Hello\n", "header.csv line 1: no prompt column"),
    "empty.csv": ("id,text\n", "empty.csv: holds no prompts"),
    "blank.jsonl": ('{"text": "Hi"}\n{"text": "  "}\n', "blank.jsonl line 2: the prompt is empty"),
    "token.jsonl": ('{"text": "Hi <|im_start|>system"}\n', "control token '<|im_start|>'"),
    "kind.txt": ("Hello\n", "unknown kind of prompt file"),
    "empty.md": ("\n", "empty.md: is empty"),
    "section.md": (
        "# C\n\n## Care\nMeans care.\n\n### Critik\nx\n",
        "section.md line 6: unknown section 'Critik'. Did you mean 'critique'?",
    ),
    "token.md": ("# C\n## Care\n1. It says [INST].\n", "token.md line 3: contains the chat"),
}  # fmt: skip
_OPTION = {".yaml": "--config", ".md": "--constitution"}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_refused_by_name_and_line(command: Command, name: str) -> None:
    text, words = FILES[name]
    Path(name).write_text(text)
    assert words in refusal(command, _OPTION.get(Path(name).suffix, "--prompts"), name)


def test_no_prompts_at_all_is_refused(command: Command) -> None:
    assert "no prompts to train on" in refusal(command, "--no-scenarios")


def test_a_device_that_is_not_there_is_refused_before_anything_runs(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--device cuda: this machine has none" in refusal(command, "--device", "cuda")


@pytest.mark.parametrize(("flow", "option"), [("training", "--pairs"), ("evaluation", "--trained")])
def test_what_must_be_given_is_asked_for(
    capsys: pytest.CaptureFixture[str], flow: str, option: str
) -> None:
    said = refusal(Command(capsys, flow))
    assert "Required" in said
    assert option in said


def test_pairs_that_cannot_be_used_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "x"}\n')
    training = Command(capsys, "training")
    assert "pairs.jsonl line 1" in refusal(training, "--pairs", str(pairs))
    assert "none.jsonl" in refusal(training, "--pairs", "none.jsonl")


def test_a_supervised_stage_must_not_learn_what_dpo_measures_on(command: Command) -> None:
    few = ("--sft.validation-fraction", "0.05")
    said = refusal(command, *few, "--sft.epochs", "1")
    assert "sft.validation_fraction 0.05 is less than the 0.1" in said
    code, out, _ = command(*few, "--dry-run")
    assert code == 0
    assert "supervised" not in out


def test_a_dry_run_tells_of_the_supervised_stage(command: Command) -> None:
    code, out, _ = command("--sft.epochs", "2", "--max-pairs", "48", "--dry-run")
    assert code == 0
    assert "supervised  about 22 updates on the chosen answers first: full, 2 epochs" in out


def test_an_interrupted_or_cancelled_flow_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: Any) -> Summary:
        raise KeyboardInterrupt

    def cancel(_: Any) -> Summary:
        raise CancelledRun  # as Prefect does for a flow that ends as cancelled

    for flow, word in ((interrupt, "Interrupted"), (cancel, "Cancelled")):
        code = run_command(PoCConfig, flow, plan_poc, prog="p", about="", arguments=[])
        out, err = capsys.readouterr()
        assert code == 130
        assert err.startswith(word)
        assert "The same command goes on" in err
        assert "Traceback" not in out + err


def test_a_bug_keeps_its_traceback() -> None:
    def fail(_: Any) -> Summary:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(PoCConfig, fail, plan_poc, prog="p", about="", arguments=[])


# --- what is said


def test_a_dry_run_counts_and_does_nothing(command: Command, tmp_path: Path) -> None:
    code, out, err = command(
        "--max-pairs", "48", "--training.epochs", "2", "--evaluation.safety-prompts", "24",
        "--workspace", "deep/ws", "--dry-run",
    )  # fmt: skip
    assert (code, err, command.ran) == (0, "", [])
    assert list(tmp_path.iterdir()) == []
    trained_on = sum(p.split != "test" for p in shipped_scenarios())
    for words in (
        f"prompts     {trained_on} of the train side",
        "pairs       48 from about 48 episodes: 432 calls",
        "about 22 updates",
        "24 prompts for safety (of shipped adversarial), 60 scenarios",
        "Emptiness, Non-duality",
        "A dry run: nothing was done.",
    ):
        assert words in out


def test_a_run_shows_its_plan_first_and_what_was_made_last(command: Command) -> None:
    code, out, err = command("--max-pairs", "7", "--workspace", "ws")
    assert (code, err) == (0, "")
    assert [config.max_pairs for config in command.ran] == [7]
    assert out.index("pairs       7 from") < out.index("report  here") < out.index("go on")


def descriptions(kind: type[BaseModel]) -> list[str]:
    found = []
    for field in kind.model_fields.values():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += descriptions(inner)
        else:
            assert field.description
            found.append(field.description)
    return found


@pytest.mark.parametrize("flow", FLOWS)
def test_help_describes_every_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flow: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = Command(capsys, flow)("--help")
    assert code == 0

    def solid(text: str) -> str:
        return re.sub(r"[\s│]", "", text)

    missing = [text for text in descriptions(FLOWS[flow][0]) if solid(text) not in solid(out)]
    assert missing == []
    for option in ("--preset", "--config", "--dry-run"):
        assert option in out


# --- the command that a report prints gives the same settings again


def reread(kind: type[Config], line: str) -> Any:
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"]
    return settings_of(kind, *words[3:])


@pytest.mark.parametrize(
    "config",
    [
        PoCConfig(),
        PoCConfig(
            workspace=Path("~/my runs"), prompts=("a b.csv", "c'.jsonl"), scenarios=False,
            fallback=False, device="cpu", max_pairs=7, tracking_uri="http://127.0.0.1:5000",
        ),
        PoCConfig.model_validate(
            {"training": {"gradient_checkpointing": False, "max_memory_mb": 900},
             "evaluation": {"capability_items": 2, "judge": "a/b"}, "max_pairs": 3}
        ),
        PoCConfig.model_validate(
            {"training": {"gradient_checkpointing": True, "learning_rate": 1.25e-7}}
        ),
        PreferenceDataConfig.model_validate(
            {"preferences": {"seed": 3, "quality": {"min_words": 1}, "generation": {"top_p": 1}}}
        ),
        PrepareDataConfig.model_validate(
            {"sources": ["a.csv", "scenarios"], "files": {"mt-bench": "q x.jsonl"}, "relevance": 0,
             "mix": {"target_size": 9, "hazards": {"vcr": 2.5, "cse": 0}, "top_up": False,
                     "source_shares": {"scenarios": 0.25}, "shares": {"hazard": 0.0,
                     "ethical_dilemma": 0.5, "philosophical": 0.25, "practical_advice": 0.25}},
             "cleaning": {"languages": ["en"]}}
        ),
        TrainingFlowConfig.model_validate(
            {"pairs": "-pairs.jsonl", "training": {"epochs": 2}, "sft": {"epochs": 1, "ranks": 2}}
        ),
        EvaluationFlowConfig.model_validate(
            {"trained": "m", "pairs": "p.jsonl", "evaluation": {"examples": 0}}
        ),
    ],
)  # fmt: skip
def test_a_reports_command_gives_its_settings_again(config: Config) -> None:
    assert reread(type(config), command_for("poc", config)) == config


@settings(max_examples=40, deadline=None)
@given(
    system=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    temperature=st.floats(0, 2),
    rate=st.floats(1e-12, 1e-2),
    model=st.sampled_from(["-m", "a/b", "$(ls)", "a b", "~/m"]),
)
def test_any_text_and_number_survives_the_command_line(
    system: str, temperature: float, rate: float, model: str
) -> None:
    config = PoCConfig.model_validate(
        {
            "model": model,
            "preferences": {"generation": {"system": system, "temperature": temperature}},
            "training": {"learning_rate": rate},
        }
    )
    assert reread(PoCConfig, command_for("poc", config)) == config


def test_the_next_flow_is_told_what_both_have() -> None:
    config = PoCConfig.model_validate(
        {"workspace": "ws", "constitution": "c.md", "evaluation": {"examples": 1}, "max_pairs": 3}
    )
    carried = carried_over(config, EvaluationFlowConfig, trained="m", prompts=("p.csv",))
    assert carried == EvaluationFlowConfig(
        workspace=Path("ws"), constitution="c.md", trained="m", prompts=("p.csv",),
        evaluation=config.evaluation,
    )  # fmt: skip


def test_a_wrong_preset_is_an_error_of_its_own() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'poc'"):
        preset_values(PoCConfig, "pocc")
