"""The examples of docs/extending.md, as a reader would use them. Families: test_families.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ccai_core.constitution import load_constitutional_config
from ccai_core.errors import ConfigError
from ccai_core.evaluation.counted import silent
from ccai_core.evaluation.parts import Outcome, Part
from ccai_core.types import Prompt, Sampling
from infra.engines.base import Engine, ServeSpec
from tests.evaluation.planted import Writer, judges
from tests.pages import ROOT, blocks

PAGE = ROOT / "docs" / "extending.md"


def example(title: str) -> dict[str, Any]:
    """Run the page's block of that name; return what it defines."""
    (block,) = (b for b in blocks(PAGE, "python") if b.title == title)
    names: dict[str, Any] = {"__name__": title.removesuffix(".py")}
    exec(compile(block.text, title, "exec", dont_inherit=True), names)
    return names


def test_a_constitution_in_another_language_is_whole(tmp_path):
    (block,) = blocks(PAGE, "markdown")
    path = tmp_path / block.title
    path.write_text(block.text, encoding="utf-8")
    read = load_constitutional_config(path)
    first, second = read.principles
    assert "dangereux" in read.preamble
    assert "dit clairement ce qu'elle ne sait pas" in first.critique
    assert second.revision.startswith("Réponds de nouveau")
    assert second.few_shot[0].prompt == "Pourquoi ai-je échoué ?"


def test_an_adapter_starts_its_server_on_this_machine_only():
    mlx: Engine = example("mlx.py")["MLX"]()
    spec = ServeSpec(engine="llamacpp", model="my/model", options=("--log-level", "INFO"))
    command = mlx.command(spec, 8123)
    assert command[:3] == ["mlx_lm.server", "--model", "my/model"]
    assert command[3:7] == ["--host", "127.0.0.1", "--port", "8123"]
    assert command[7:] == ["--log-level", "INFO"]
    assert mlx.environment(spec, "secret") == {"MLX_API_KEY": "secret"}
    assert mlx.model_name(spec) == "my/model"
    with pytest.raises(ConfigError, match="one GPU"):
        mlx.command(spec.model_copy(update={"gpus": 2}), 8123)


def test_a_part_finds_the_model_that_says_less():
    prompts = [Prompt(id=f"q{n}", text=f"Why {n}?", source="t", split="test") for n in range(12)]
    part: Part = example("brevity.py")["Brevity"](prompts, Sampling(max_new_tokens=32))

    async def outcome(words: int) -> Outcome:
        asked = await part.ask(Writer(lambda call: "so " * words), silent)
        return Outcome(asked, await part.judge(judges(), asked, silent))

    before, after = (asyncio.run(outcome(words)) for words in (9, 4))
    (metric,) = part.findings(before, after).metrics
    assert (metric.n, metric.baseline.estimate, metric.trained.estimate) == (12, 9, 4)
    assert metric.p_value < 0.01
    assert not metric.higher_is_better
    assert (part.calls, part.most_tokens, part.judged) == (12, 12 * 32, 0)
