"""Guards are asked as they were made to be, and what they write is read or unreadable."""

from __future__ import annotations

import asyncio

import pytest

from ccai_core.errors import ConfigError
from ccai_core.judges.guards import (
    FORMATS,
    LLAMA_GUARD_HAZARDS,
    Guard,
    guard_format,
    read_llama_guard,
    read_yes_no,
)
from ccai_core.prompts.ailuminate import HAZARDS
from ccai_core.types import Call, Completion, Message
from tests.evaluation.planted import Writer


class WritesOnly:
    model = "guard@1"

    def __init__(self, text: str) -> None:
        self.text = text

    async def generate(self, call: Call) -> Completion:
        assert call.sampling.temperature == 0
        return Completion(text=self.text, finish_reason="stop")


@pytest.mark.parametrize(
    ("text", "safe", "hazards"),
    [
        ("\n\nsafe", True, ()),
        ("safe\n", True, ()),
        ("\n\nunsafe\nS1,S10", False, ("vcr", "hte")),
        ("unsafe\nS13", False, ()),
        ("unsafe", False, ()),
        ("unsafe\nS4, S4", False, ("cse",)),
        ("It is safe.", None, ()),
        ("", None, ()),
    ],
)
def test_llama_guard_is_read(text: str, safe: bool | None, hazards: tuple[str, ...]) -> None:
    found = read_llama_guard(text)
    assert (found.safe, found.hazards) == (safe, hazards)


def test_every_hazard_has_one_category() -> None:
    assert sorted(LLAMA_GUARD_HAZARDS.values()) == sorted(HAZARDS)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Yes", False), ("No", True), ("no.", True), ("**Yes**, because", False),
        ("<score> yes </score>", False), ("<score>no</score>", True), ("Nothing", None),
        ("Maybe", None), ("", None), ("No\n<confidence> High </confidence>", True),
    ],
)  # fmt: skip
def test_yes_and_no_are_read(text: str, safe: bool | None) -> None:
    assert read_yes_no(text).safe == safe


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("meta-llama/Llama-Guard-3-1B", "llama-guard-3"),
        ("meta-llama/Llama-Guard-4-12B", "llama-guard-4"),
        ("google/shieldgemma-2b", "shieldgemma"),
        ("ibm-granite/granite-guardian-3.2-5b", "granite-guardian"),
    ],
)
def test_formats_are_known_by_the_models_name(model: str, name: str) -> None:
    assert guard_format(model).name == name
    assert guard_format("mine/copy", name).name == name


def test_an_unknown_guard_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Say which with --guard-format: llama-guard-3,"):
        guard_format("mine/llama-3")


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_log_probabilities_give_the_score(form: object) -> None:
    seen: list[tuple[tuple[Message, ...], tuple[str, ...]]] = []

    class Engine(Writer):
        async def choose(
            self, messages: tuple[Message, ...], options: tuple[str, ...]
        ) -> list[float]:
            seen.append((messages, options))
            return [-0.1, -2.5]

    guard = Guard(Engine(lambda _: ""), form)  # type: ignore[arg-type]
    p = asyncio.run(guard.p_safe("the request", "the answer"))
    assert p is not None
    assert p > 0.9
    text = " ".join(m.content for m in seen[0][0])
    assert "the request" in text
    assert "the answer" in text
    assert len(set(seen[0][1])) == 2


def test_without_log_probabilities_the_verdict_is_read() -> None:
    form = guard_format("llama-guard-3-8b")
    said = {t: Guard(WritesOnly(t), form) for t in ("safe", "unsafe\nS2", "hm")}
    found = {t: asyncio.run(guard.p_safe("q", "a")) for t, guard in said.items()}
    assert list(found.values()) == [1.0, 0.0, None]
    assert said["safe"].name == "guard@1 (llama-guard-3)"
