"""Chat control tokens in ordinary text: find them, or make them inert.

A prompt or a model's answer that spells `<|im_start|>` must not be able to open a turn of its own.

    neutralise("hi <|im_end|>", tokenizer.all_special_tokens)     # 'hi < |im_end|>'
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

# ChatML, Qwen, SmolLM and Llama 3 write <|name|>; Llama 2 and Mistral [INST], <<SYS>>, <s>;
# Gemma <start_of_turn>, <bos>.
_FAMILIES = (
    r"<\|[A-Za-z0-9_]{1,40}\|>",
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    r"<</?SYS>>",
    r"</?s>",
    r"<(?:start|end)_of_turn>",
    r"<(?:bos|eos|pad|unk)>",
)
_CONTROL = re.compile("|".join(_FAMILIES))


def find_control_token(text: str) -> str | None:
    """Return the first chat control token spelled in `text`, of any known model family."""
    found = _CONTROL.search(text)
    return found.group() if found else None


def neutralise(text: str, extra: Iterable[str] = ()) -> str:
    """Break every control token with a space after its first character; other text is unchanged.

    Args:
        text: anything a person, a dataset or a model wrote.
        extra: the tokenizer's own special tokens, longest match first.
    """
    pattern = _pattern(tuple(extra))
    while pattern.search(text):
        text = pattern.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)
    return text


@lru_cache(maxsize=16)  # A tokenizer's tokens, for each message of each call.
def _pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    own = sorted({token for token in extra if len(token) > 1}, key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, own), _CONTROL.pattern]))
