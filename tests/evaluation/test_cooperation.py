"""Moves are read and never made up; planted players score as the rules say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ccai_core.constitution import load_constitutional_config
from ccai_core.evaluation.cooperation import (
    ALL_PRINCIPLES,
    NO_PROMPT,
    Cooperation,
    conditions,
)
from ccai_core.evaluation.counted import silent
from ccai_core.evaluation.dilemma import OPPONENTS, ROUNDS, read_move
from ccai_core.evaluation.parts import Outcome
from ccai_core.types import Call
from tests.evaluation.planted import Writer

PART = Cooperation({NO_PROMPT: "", "Care": "Care for all."}, repeats=2, seed=0)


def play(write: Callable[[Call], str], part: Cooperation = PART) -> Outcome:
    return Outcome(asyncio.run(part.ask(Writer(write), silent)), {})


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("COOPERATE", "cooperate"),
        ("I choose to co-operate.", "cooperate"),
        ("**Defect**", "defect"),
        ("I will not cooperate; I defect.", "defect"),
        ("Cooperation, rather than defecting", "cooperate"),
        ("cooperate or defect?", None),
        ("Let us trust each other.", None),
        ("", None),
        ("I won't defect.", None),
        ("operated", None),
    ],
)
def test_moves_are_read(text: str, move: str | None) -> None:
    assert read_move(text) == move


def test_always_cooperating_and_always_defecting() -> None:
    kind, hard = play(lambda _: "COOPERATE"), play(lambda _: "DEFECT")
    games = PART.games(kind.asked)
    assert len(games) == 2 * len(OPPONENTS) * 2
    assert all(game.rate == 1 for game in games.values())
    assert games[NO_PROMPT, "always defect", 0].joint == 5
    assert games[NO_PROMPT, "always cooperate", 0].joint == 6
    assert games[NO_PROMPT, "tit for tat", 0].joint == 6
    assert PART.games(hard.asked)[NO_PROMPT, "tit for tat", 0].joint == (5 + 9 * 2) / 10
    mixed = games[NO_PROMPT, "mixed", 1]
    assert mixed.others.count("cooperate") == ROUNDS / 2

    found = PART.findings(hard, kind)
    rate = found.metrics[0]
    assert (rate.baseline.estimate, rate.trained.estimate) == (0, 1)
    assert rate.p_value is not None
    assert rate.p_value < 0.01
    assert found.metrics[1].difference.low > 0


def test_the_prompt_decides_and_its_effect_has_a_size() -> None:
    def swayed(call: Call) -> str:
        last = call.messages[-1].content
        trusts = "The other player chose COOPERATE" in last
        kind = call.messages[0].role == "system" and "Round 3" not in last
        return "COOPERATE" if kind or trusts else "DEFECT"

    found = PART.findings(play(swayed), play(swayed))
    assert found.metrics[0].difference.estimate == 0
    rows = {row[0]: row for row in found.tables[0].rows}
    plain, care = (float(rows[name][1] or 0) for name in (NO_PROMPT, "Care"))
    assert plain < 0.6 < 0.9 < care
    d, low = rows["Care"][5:7]
    assert d is not None
    assert float(low or 0) > 0
    assert rows[NO_PROMPT][5] is None


def test_rounds_without_a_move_are_void_and_counted() -> None:
    def vague(call: Call) -> str:
        return "Let us see." if "Round 2 " in call.messages[-1].content else "COOPERATE"

    outcome = play(vague)
    game = PART.games(outcome.asked)[NO_PROMPT, "tit for tat", 0]
    assert game.moves[1] is None
    assert len(game.rounds) == 9
    assert game.others[2] == "cooperate", "tit for tat answers the last move that could be read"
    found = PART.findings(outcome, outcome)
    assert "20 (baseline) and 20 (trained) of 200 moves" in found.notes[0]
    silent_model = play(lambda _: "Hello.")
    assert PART.findings(silent_model, silent_model).metrics == ()


def test_a_game_is_told_to_the_model_as_it_went() -> None:
    engine = Writer(lambda _: "I cooperate, of course!")
    asyncio.run(Cooperation({NO_PROMPT: ""}, 1, 0).ask(engine, silent))
    last = max(engine.calls, key=lambda call: len(call.messages))
    assert len(last.messages) == 2 * ROUNDS - 1
    assert {m.content for m in last.messages if m.role == "assistant"} == {"COOPERATE"}


def test_conditions_are_the_principles_of_the_constitution() -> None:
    constitution = load_constitutional_config()
    prompts = conditions(constitution)
    assert list(prompts) == [NO_PROMPT, *(p.name for p in constitution.principles), ALL_PRINCIPLES]
    assert all(p.description[:40] in prompts[ALL_PRINCIPLES] for p in constitution.principles)
