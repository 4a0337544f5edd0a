"""What a sweep may search is checked, and said, before the first trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.errors import ConfigError
from ccai_core.search_space import read_space, shipped_spaces
from ccai_core.training_config import TrainingConfig


def space(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_holds_what_training_takes(name: str) -> None:
    read_space(name).check(TrainingConfig(method="lora"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat: {low: 1, high: 2}", "mine.yaml: learning_rat is nothing .*learning_rate"),
        ("ranks: {choices: [1, 2]}", "ranks is nothing to search"),
        ("beta: 0.1", r"mine.yaml: beta: give \{low"),
        ("beta: {low: 0.5, high: 0.1}", r"mine.yaml: beta: .*low 0.5 must be below high 0.1"),
        ("beta: {low: 0, high: 1, log: true}", "log needs low above 0"),
        ("beta: {low: 0.1, high: 1, lgo: true}", "mine.yaml: beta: unknown key 'lgo'"),
        ("beta: {low: 0.1, choices: [1, 2]}", "choices stand alone"),
        ("beta: {choices: [0.1]}", "two different values"),
        ("loss: {low: 1, high: 2}", "loss has no numbers in between"),
        ("beta: {low: 0.1, high: 1, step: 2}", "steps of 2 from 0.1 do not come to 1"),
        ("beta: {low: 0.1, high: 1, step: 0.4}", "steps of 0.4 from 0.1 do not come to 1"),
        ("1: {low: 1, high: 2}", "1 is nothing to search"),
        ("{}", "names no setting"),
    ],
)  # fmt: skip
def test_a_wrong_space_names_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_space(space(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate: {low: 1.0e-6, high: 1.0}", "learning_rate: Input should be less than"),
        ("epochs: {low: 1, high: 2.5}", "epochs: 2.5 must be a whole number"),
        ("epochs: {low: 1, high: 3, step: 0.5}", "epochs: 0.5 must be a whole number"),
        ("lora_rank: {choices: [8, 16]}", "lora_rank means nothing with method full: set method"),
        ("{simpo_gamma: {low: 0, high: 1}, loss: {choices: [ipo, hinge]}}", "simpo_gamma means"),
        ("loss: {choices: [sigmoid, sigmiod]}", "sigmiod"),
        ("batch_size: {choices: [1, none]}", "batch_size"),
    ],
)
def test_values_that_training_does_not_take_are_found_before_a_trial(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_space(space(tmp_path, text)).check(TrainingConfig())


def test_a_value_in_the_middle_of_a_range_is_found_too(tmp_path: Path) -> None:
    name = space(tmp_path, "gradient_accumulation: {low: 2, high: 8}")
    with pytest.raises(ConfigError, match="gradient_accumulation 3 cannot be divided by 2"):
        read_space(name).check(TrainingConfig(ranks=2))
    name = space(tmp_path, "gradient_accumulation: {low: 2, high: 8, step: 2}")
    read_space(name).check(TrainingConfig(ranks=2))


def test_what_is_heard_with_one_of_the_choices_may_be_searched(tmp_path: Path) -> None:
    text = "{method: {choices: [full, lora]}, lora_rank: {choices: [8, 16]}}"
    read_space(space(tmp_path, text)).check(TrainingConfig())


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"--space dop: unknown.*dpo.*A YAML file works too"):
        read_space("dop")
