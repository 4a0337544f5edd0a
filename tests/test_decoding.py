"""Our decoding loop against transformers' own, and against the distribution it draws from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccai_core.decoding import Stopped, _draw, _nucleus, decode
from ccai_core.models import load_model, resolve_model
from ccai_core.types import Sampling
from tests.tiny_model import save_tiny_model

PROMPTS = ([5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [20], [30, 31, 32, 33], [5, 6, 7])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-chat")
    return load_model(resolve_model(str(folder)), "cpu", "fp32")[0]


def padded(rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
    return ids, mask


def run(model: Any, rows: Any, ends: set[int], seeds: Any = None, **sampling: Any) -> Any:
    ids, mask = padded(rows)
    drawn = Sampling(**{"temperature": 0, "max_new_tokens": 24, **sampling})
    seeds = seeds or [str(i) for i in range(len(rows))]
    return decode(model, ids, mask, drawn, ends=ends, seeds=seeds)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_text_is_that_of_transformers(model: Any, penalty: float) -> None:
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        theirs = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
            repetition_penalty=penalty, pad_token_id=0, eos_token_id=1,
        )[0, len(prompt) :].tolist()  # fmt: skip
        (ours,) = run(model, [prompt], {1}, repetition_penalty=penalty)
        assert ours == theirs


def test_rows_that_end_leave_the_batch_and_the_others_do_not_notice(model: Any) -> None:
    alone = [run(model, [prompt], {-1})[0] for prompt in PROMPTS]
    # Tokens that rows say at different moments become ends: rows leave one after the other.
    ends = {alone[0][3], alone[1][9], alone[3][15]}
    sizes: list[int] = []
    forward = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        sizes.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    model.forward = counted
    try:
        together = run(model, PROMPTS, ends)
    finally:
        model.forward = forward
    for whole, said in zip(alone, together, strict=True):
        cut = next((i + 1 for i, token in enumerate(whole) if token in ends), len(whole))
        assert said == whole[:cut]
    assert sizes[0] == len(PROMPTS)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < len(PROMPTS)


def test_a_rows_dice_are_its_own(model: Any) -> None:
    seeds = ["a", "b", "c", "d", "e"]
    sampling = {"temperature": 1.0, "top_p": 0.9}
    together = run(model, PROMPTS, {-1}, seeds, **sampling)
    assert together == run(model, PROMPTS, {-1}, seeds, **sampling)
    assert together[3] == run(model, [PROMPTS[3]], {-1}, ["d"], **sampling)[0]
    # The same prompt under another seed says something else.
    assert together[0] != together[4]


def test_draws_follow_the_nucleus_distribution() -> None:
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04])
    logits = probabilities.log()[None].expand(4000, -1)
    import random

    sampling = Sampling(temperature=1.0, top_p=0.85)
    drawn = _draw(logits, None, sampling, [random.Random(i) for i in range(4000)])
    shares = torch.bincount(drawn, minlength=5) / 4000
    # 0.4 + 0.3 + 0.2 reaches 0.85: the rest is never drawn.
    assert shares[3] == shares[4] == 0
    assert torch.allclose(shares[:3], probabilities[:3] / 0.9, atol=0.03)


def test_a_flat_distribution_is_looked_at_as_far_as_its_mass_needs() -> None:
    logits = torch.zeros(2, 1000)
    shares, tokens = _nucleus(logits, 0.9)
    assert shares.shape == tokens.shape
    assert int((shares[0] > 0).sum()) in {900, 901}
    everything, _ = _nucleus(logits, 1.0)
    assert float(everything[0].sum()) == pytest.approx(1, abs=1e-4)


def test_padding_is_not_held_back_by_the_repetition_penalty(model: Any) -> None:
    # 0 pads, and is an ordinary word here: a long neighbour must not change what a row says.
    alone = run(model, [PROMPTS[2]], {-1}, repetition_penalty=2.0)[0]
    assert run(model, [PROMPTS[2], PROMPTS[1]], {-1}, repetition_penalty=2.0)[0] == alone


def test_it_ends_when_asked_to(model: Any) -> None:
    ids, mask = padded(PROMPTS)
    looks = iter([False, False, True])
    with pytest.raises(Stopped):
        decode(
            model, ids, mask, Sampling(), ends={1}, seeds=list("abcde"),
            stopping=lambda: next(looks),
        )  # fmt: skip
