"""The findings of an expert review in words: no claim where an interval holds nothing for it.

comparison(win)      # 'No difference shown: a was preferred to b in 58.3% (41.0% to 74.2%) …'
"""

from __future__ import annotations

from collections.abc import Callable

from ccai_core.evaluation.results import Interval
from ccai_core.human_evaluation.questions import QUESTIONS
from ccai_core.human_evaluation.results import WinRate

_RELIABLE, _TENTATIVE = 0.8, 0.667
_TITLES = {question.id: question.title for question in QUESTIONS}


def comparison(win: WinRate) -> str:
    """Say which of two models reviewers prefer, if the interval says so."""
    rate = with_interval(win.rate, share)
    counts = f"{win.wins} won, {win.ties} equal, {win.losses} lost"
    detail = f"{win.model} against {win.other}: {rate}; {counts} on {win.prompts} prompts."
    if win.rate.low > 0.5:
        return f"{win.model} is preferred. {detail}"
    if win.rate.high < 0.5:
        return f"{win.other} is preferred. {detail}"
    return f"No difference shown. {detail}"


def reading_of_alpha(alpha: Interval | None) -> str:
    """Say what an alpha is good for, by the lower end of its interval."""
    if alpha is None:
        return "nothing to compare"
    if alpha.low >= _RELIABLE:
        return "reliable"
    if alpha.low >= _TENTATIVE:
        return "tentative"
    return "not shown to be reliable"


def question_title(question: str) -> str:
    """Return the name of a question."""
    return _TITLES[question]


def with_interval(interval: Interval, form: Callable[[float], str]) -> str:
    """Return '0.52 (0.31 to 0.70)'."""
    return f"{form(interval.estimate)} ({form(interval.low)} to {form(interval.high)})"


def share(value: float) -> str:
    """Return 0.5 as '50.0%'."""
    return f"{100 * value:.1f}%"


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"{value:+.2f}"


def number(value: float) -> str:
    """Return a number to two places."""
    return f"{value:.2f}"
