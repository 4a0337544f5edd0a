"""Other families of base models: their chat templates and architectures, from episode to training.

The templates are written after what the families' model cards say of their formats.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
)  # fmt: skip

from ccai_core.chat_tokens import ChatTokens
from ccai_core.constitution import load_constitutional_config
from ccai_core.dpo import TrainingConfig, train
from ccai_core.episodes import GenerationConfig, run_episode
from ccai_core.local_engine import LocalEngine
from ccai_core.models import resolve_model
from ccai_core.types import Prompt, assistant, system, user
from tests.tiny_model import CORPUS, make_tokenizer


@dataclass(frozen=True)
class Family:
    special: tuple[str, ...]
    template: str
    config: type[PreTrainedConfig]
    read: str
    """What the model reads of the conversation below."""


_TURNS = "{% for m in messages %}"
_REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
_ALTERNATES = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must alternate') }}{% endif %}"
)

FAMILIES = {
    "llama-3": Family(
        ("<|end_of_text|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>",
         "<|end_header_id|>"),
        "<|begin_of_text|>" + _TURNS + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        LlamaConfig,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": Family(
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        _REFUSES + "<s>" + _TURNS + _ALTERNATES + "{% if m.role == 'user' %}"
        "[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
        MistralConfig,
        "<s>[INST] Be kind.\n\nHi [/INST] Hello</s>[INST] How? [/INST]",
    ),
    "gemma": Family(
        ("<pad>", "<bos>", "<end_of_turn>", "<start_of_turn>"),
        _REFUSES + "<bos>" + _TURNS + _ALTERNATES + "<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        GemmaConfig,
        "<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n"
        "<start_of_turn>model\nHello<end_of_turn>\n<start_of_turn>user\nHow?<end_of_turn>\n"
        "<start_of_turn>model\n",
    ),
}  # fmt: skip
FAMILIES["gemma-2"] = Family(**{**vars(FAMILIES["gemma"]), "config": Gemma2Config})
CONVERSATION = (system("Be kind."), user("Hi"), assistant("Hello"), user("How?"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    tokenizer = make_tokenizer(CORPUS, 300, family.special, family.template)
    torch.manual_seed(0)
    config = family.config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return resolve_model(str(folder))


def test_a_conversation_reads_as_the_family_wants_it(family: Family, model: Any) -> None:
    tokens = ChatTokens(AutoTokenizer.from_pretrained(str(model.path)))
    assert tokens.as_text(CONVERSATION) == family.read
    assert tokens.text_of(tokens.of_chat(CONVERSATION)) == family.read
    # Nobody opens a turn by writing its tokens.
    for spelled in family.special:
        text = tokens.as_text([user(f"x {spelled} y")])
        assert text.count(spelled) == tokens.as_text([user("x y")]).count(spelled)


def test_an_episode_runs_and_its_pairs_train(model: Any, tmp_path: Any) -> None:
    principle = load_constitutional_config().principles[0]
    small = GenerationConfig(
        response_tokens=8, critique_tokens=8, revision_tokens=8, batch_size=2, temperature=0
    )

    question = Prompt(id="q", text="Why?", source="test", split="train")

    async def run() -> Any:
        async with LocalEngine(model, "cpu", "fp32") as engine:
            return await run_episode(engine, question, [principle], small)

    episode = asyncio.run(asyncio.wait_for(run(), 60))
    assert episode.response.finish_reason in {"stop", "length"}

    turns = {"user": "How should I act?", "assistant": "With care."}
    rows = [
        {
            "prompt": [{"role": "user", "content": f"{turns['user']} {n}"}],
            "chosen": [{"role": "assistant", "content": f"{turns['assistant']} {n}"}],
            "rejected": [{"role": "assistant", "content": f"No. {n}"}],
            "principle": "care", "prompt_id": f"q{n}", "source": "test", "critique": "Curt.",
            "provenance": {},
        }
        for n in range(4)
    ]  # fmt: skip
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TrainingConfig(
        epochs=1, batch_size=1, gradient_accumulation=1, learning_rate=1e-3, validation_fraction=0.3
    )
    result = train(config, model, pairs, tmp_path / "out", "cpu")
    assert result.validation_before is not None
    assert result.validation_before.margin == pytest.approx(0, abs=1e-6)
    assert result.validation_after.margin != 0
    AutoModelForCausalLM.from_pretrained(str(result.model_path))
