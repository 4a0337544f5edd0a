"""Signs, in the lines of a training log, of a run that goes wrong: each is words, or nothing.

What was measured last on held-out pairs is looked at where there is any, because it is always the
same pairs; else the means of the first and the last ten logged steps, which are different ones.

    collapse(read_log(path))      # "Chosen answers became much less likely too …", or ""
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

# Logged steps in a mean. A batch of four pairs has a loss with a deviation of 0.1 to 0.2 around
# the true one; ten of them leave 0.05.
_WINDOW = 10
# Times the loss before training (log 2 for DPO's own): held out, 0.797, where a model that knows
# nothing has 0.693; on training pairs more, because first and last ten are not the same pairs.
_DIVERGED_HELD_OUT, _DIVERGED_TRAINING = 1.15, 1.3
# Reward margin that is none: with beta 0.1 a tenth of a nat between two whole answers. It is looked
# for after this share of the steps, when the warm-up is long over.
_STILL, _STILL_AFTER = 0.01, 0.5
# Reward margin from which it is asked what it is made of: with beta 0.1, one nat.
_MARGIN = 0.1
# Share by which the chosen answers' log-probability may fall. Some fall is usual in DPO, which only
# asks for a distance (Pal et al. 2024, arXiv 2402.13228).
_FALLEN = 0.2
# Chosen answers longer by this share gain this share more reward from an equal change of every
# token, so that becoming longer lowers the loss by itself (Park et al. 2024, arXiv 2403.19159).
_LONGER = 1.25

_Entries = Sequence[Mapping[str, Any]]


def divergence(entries: _Entries) -> str:
    """The loss is clearly above where it began."""
    held_out = _series(entries, "eval", "loss")
    if len(held_out) > 1:
        before, now, limit, where = held_out[0], held_out[-1], _DIVERGED_HELD_OUT, "Held-out"
    else:
        steps = _series(entries, "step", "loss")
        if len(steps) < 2 * _WINDOW:
            return ""
        before, now = fmean(steps[:_WINDOW]), fmean(steps[-_WINDOW:])
        limit, where = _DIVERGED_TRAINING, "Training"
    if now <= before * limit:
        return ""
    return (
        f"{where} loss has risen from {before:.3f} to {now:.3f}: training diverges, and the model "
        "is worse at telling pairs apart than before. Lower learning_rate."
    )


def no_movement(entries: _Entries) -> str:
    """Half of the training has not moved the model."""
    steps = [entry for entry in entries if entry.get("event") == "step"]
    margins = _series(entries, "step", "margin")
    if len(margins) < _WINDOW or steps[-1]["step"] < _STILL_AFTER * steps[-1]["total_steps"]:
        return ""
    if abs(fmean(margins[-_WINDOW:])) > _STILL or abs(_latest(entries, "margin") or 0.0) > _STILL:
        return ""
    return (
        f"After {steps[-1]['step']} of {steps[-1]['total_steps']} steps the margin is still "
        f"{fmean(margins[-_WINDOW:]):+.4f}: hardly anything is learned. Raise learning_rate."
    )


def collapse(entries: _Entries) -> str:
    """The margin grows while chosen answers become unlikely (likelihood displacement).

    Razin et al. 2024 (arXiv 2410.08847): what takes their place may be the opposite in meaning.
    Said when the chosen answers have lost more reward than the margin has gained, or a fifth of
    their log-probability.
    """
    logps = _series(entries, "eval", "logp_chosen")
    fallen = len(logps) > 1 and logps[-1] < logps[0] * (1 + _FALLEN)
    reward, margin = _latest(entries, "reward_chosen"), _latest(entries, "margin")
    displaced = reward is not None and margin is not None and margin > _MARGIN and reward < -margin
    if not fallen and not displaced:
        return ""
    facts = []
    if fallen:
        facts.append(f"log-probability {logps[0]:.0f} to {logps[-1]:.0f}")
    if displaced:
        facts.append(f"reward {reward:+.2f} with a margin of {margin:.2f}")
    return (
        f"Chosen answers became much less likely too ({', '.join(facts)}): the margin comes from "
        "pushing rejected ones further down. A larger beta or a smaller learning_rate keeps the "
        "model closer."
    )


def length_in_data(entries: _Entries) -> str:
    """One side's answers are longer: length can be learned in place of what is preferred."""
    chosen, rejected = _lengths(entries)
    if not chosen or not rejected or 1 / _LONGER < chosen / rejected < _LONGER:
        return ""
    side, other = ("chosen", "rejected") if chosen > rejected else ("rejected", "chosen")
    share = max(chosen, rejected) / min(chosen, rejected) - 1
    return (
        f"The {side} answers are {share:.0%} longer than the {other} ones ({chosen:.0f} chosen, "
        f"{rejected:.0f} rejected tokens on average): length may be learned in place of what is "
        "preferred. length_desensitised or loss sigmoid_norm count length less."
    )


def length_in_margin(entries: _Entries) -> str:
    """The margin is there for whole answers and not a token: it is made of their length."""
    chosen, rejected = _lengths(entries)
    reward, margin = _latest(entries, "reward_chosen"), _latest(entries, "margin")
    if not chosen or not rejected or reward is None or margin is None or margin <= _MARGIN:
        return ""
    # The rewards' common factor beta does not matter for which is greater.
    if reward / chosen > (reward - margin) / rejected:
        return ""
    return (
        f"A token of the chosen answers (mean length {chosen:.0f}) gained no more than one of the "
        f"rejected ({rejected:.0f}): the margin comes from length. length_desensitised or loss "
        "sigmoid_norm count length less."
    )


def _lengths(entries: _Entries) -> tuple[float, float]:
    for entry in entries:
        if entry.get("event") == "start" and entry.get("chosen_tokens"):
            return float(entry["chosen_tokens"]), float(entry.get("rejected_tokens") or 0)
    return 0.0, 0.0


def _latest(entries: _Entries, metric: str) -> float | None:
    """Return what was measured last on held-out pairs; where there are none, the last ten steps."""
    held_out = [e for e in entries if e.get("event") == "eval"]
    if held_out:
        value = held_out[-1].get(metric)
        return None if value is None else float(value)
    steps = _series(entries, "step", metric)
    return fmean(steps[-_WINDOW:]) if len(steps) >= _WINDOW else None


def _series(entries: _Entries, event: str, metric: str) -> list[float]:
    return [
        float(entry[metric])
        for entry in entries
        if entry.get("event") == event and entry.get(metric) is not None
    ]
