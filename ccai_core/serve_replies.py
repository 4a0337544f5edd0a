"""What the server answers, in OpenAI's form: completions, their scores, usage, streams.

return JSONResponse(chat_reply(head, completion))
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from ccai_core.chat_tokens import ChatTokens
from ccai_core.scoring import TokenScores
from ccai_core.types import Completion

Reply = dict[str, Any]


def head(prefix: str, kind: str, name: str, identity: str) -> Reply:
    """Return what every reply begins with; the fingerprint says which weights answered."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": name,
        "system_fingerprint": identity,
    }


def usage(prompt: int, completion: int) -> Reply:
    """Return how many tokens were read and written."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def total_usage(completions: Sequence[Completion]) -> Reply:
    """Return the tokens of several completions together."""
    return usage(
        sum(each.prompt_tokens for each in completions),
        sum(each.completion_tokens for each in completions),
    )


def chat_choice(completion: Completion, part: str) -> Reply:
    """Return the one answer of a chat; `part` is 'message', in a stream 'delta'."""
    return {
        "index": 0,
        part: {"role": "assistant", "content": completion.text.strip()},
        "logprobs": None,
        "finish_reason": completion.finish_reason,
    }


def text_choice(index: int, before: str, completion: Completion) -> Reply:
    """Return one continued text; `before` is the prompt where the client wants it repeated."""
    return {
        "index": index,
        "text": before + completion.text,
        "logprobs": None,
        "finish_reason": completion.finish_reason,
    }


def score_choice(
    index: int, ids: Sequence[int], scores: TokenScores, tokens: ChatTokens, more: int, top: int
) -> Reply:
    """Return a prompt and the log-probability of each of its tokens.

    Args:
        index: number of the prompt in the request.
        ids: the prompt.
        scores: of its tokens.
        tokens: spells them.
        more: 1 to go on with the likeliest token, whose score comes last.
        top: 1 to say as well what was likeliest at each place.
    """
    ids, logprobs = list(ids), list(scores.logprobs)
    if more:
        token, value = scores.likeliest[-1]
        ids, logprobs = [*ids, token], [*logprobs, value]
    spelled = [tokens.text_of([each]) for each in ids]
    offsets = [0]
    for each in spelled:
        offsets.append(offsets[-1] + len(each))
    likeliest: list[Reply | None] = [None]
    for place, (best, best_value) in enumerate(scores.likeliest[: len(ids) - 1], 1):
        # As OpenAI does, the token itself is listed as well. Of two that are spelled alike, such
        # as halves of a character, the likelier stays: clients look whether the token is that one.
        own = {spelled[place]: logprobs[place]}
        likeliest.append({**own, tokens.text_of([best]): best_value})
    return {
        "index": index,
        "text": tokens.text_of(ids),
        "logprobs": {
            "tokens": spelled,
            "token_logprobs": logprobs,
            "top_logprobs": likeliest if top else None,
            "text_offset": offsets[:-1],
        },
        "finish_reason": "length",
    }


def stream(reply: Reply, with_usage: bool) -> Iterator[str]:
    """Yield a whole reply as server-sent events: one chunk, its usage if wanted, the end."""
    used = reply.pop("usage")
    yield f"data: {json.dumps(reply)}\n\n"
    if with_usage:
        yield f"data: {json.dumps({**reply, 'choices': [], 'usage': used})}\n\n"
    yield "data: [DONE]\n\n"
