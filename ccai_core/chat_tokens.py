"""From conversations to tokens, with nothing that anybody wrote able to open a turn of its own.

tokens = ChatTokens(load_tokenizer(ref))
ids = tokens.of_chat((user("Hello"),))
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError

from ccai_core.control_tokens import neutralise
from ccai_core.types import Message, user


class ChatTokens:
    """A chat model's tokenizer (of transformers), as engines need it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = tuple(tokenizer.all_special_tokens)

    def inert(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with every control token broken: fit for any server's template."""
        return [
            Message(role=m.role, content=neutralise(m.content, self._special)) for m in messages
        ]

    def placed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the conversation with the system prompt where the model's template takes it.

        Templates without a place for one (Gemma's, early ones of Mistral) refuse it or drop it:
        then the person's first turn begins with it.
        """
        if len(messages) < 2 or messages[0].role != "system" or self._has_a_system_turn:
            return messages
        instructions, first, *others = messages
        return [user(f"{instructions.content}\n\n{first.content}"), *others]

    def as_text(self, messages: Sequence[Message]) -> str:
        """Return the conversation as the model reads it, up to where its answer begins."""
        placed = self.inert(self.placed(messages))
        turns = [{"role": m.role, "content": m.content} for m in placed]
        text: str = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False
        )
        return text

    def of_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of the conversation, up to where the model's answer begins."""
        return self.of_text(self.as_text(messages))

    def of_text(self, text: str) -> list[int]:
        """Return the tokens of a plain text, without a beginning or an end."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def of_inert_text(self, text: str) -> list[int]:
        """Return the tokens of a plain text; a control token spelled in it is only its letters."""
        encode = self._letters_only.encode
        return list(encode(text, add_special_tokens=False, split_special_tokens=True))

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens spell, control tokens included."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    @cached_property
    def _has_a_system_turn(self) -> bool:
        turns = [{"role": role, "content": f"as {role}"} for role in ("system", "user")]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateError:
            return False
        return "as system" in text

    @cached_property
    def _letters_only(self) -> Any:
        # Splitting is a state of the tokenizer that must not change while another thread reads.
        return copy.deepcopy(self._tokenizer)
