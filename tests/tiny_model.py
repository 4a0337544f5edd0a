"""A tiny Llama with random weights and a chat template, saved as a model folder in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = ("How should I act when a friend is angry?", "With care, and kindly, as a friend would.")


SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_tokenizer(
    corpus: Sequence[str], size: int, special: Sequence[str] = SPECIAL, template: str = CHATML
) -> Any:
    """Make a small BPE: a vocabulary of 49,152 would take nearly all of a tiny model's time.

    The second of its special tokens begins a text, the third ends a turn.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        vocab_size=size,
    )
    inner.train_from_iterator(corpus, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=special[1], eos_token=special[2], pad_token=special[2],
        extra_special_tokens=list(special[3:]),
    )  # fmt: skip
    made.chat_template = template
    return made


def save_tiny_model(
    folder: Path,
    corpus: Sequence[str] = CORPUS,
    vocabulary: int = 320,
    spread: float = 0.5,
    heads: int = 4,
) -> Path:
    """Save it; with a wide `spread` of weights, what it writes depends clearly on what it reads."""
    tokenizer = make_tokenizer(corpus, vocabulary)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=heads, num_key_value_heads=2, max_position_embeddings=512,
            initializer_range=spread, tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
    )  # fmt: skip
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder
