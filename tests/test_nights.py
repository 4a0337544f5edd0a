"""The nights' memory: what is compared with what, and what survives a machine that stops."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.nights import History, Measured, Night
from ccai_core.nights_plot import draw_nights

FIRST = date(2026, 3, 1)
USUAL = [0.10, 0.12, 0.09, 0.11, 0.10, 0.12, 0.11, 0.10]


def night(
    day: int, difference: float = 0.1, baseline: float = 0.6, against: str = "b@1", **values: object
) -> Night:
    measured = Measured(
        baseline=baseline, trained=baseline + difference, difference=difference, n=200
    )
    return Night.model_validate(
        {
            "night": FIRST + timedelta(days=day),
            "status": "measured",
            "model": "m@1",
            "baseline": against,
            "measures": {"safety.safe_rate": measured},
            **values,
        }
    )


def filled(path: Path, differences: list[float]) -> History:
    history = History(path)
    for day, value in enumerate(differences):
        history.add(history.judged(night(day, value)))
    return history


def test_a_fall_is_a_regression_and_stays_one(tmp_path: Path) -> None:
    history = filled(tmp_path / "h.jsonl", [*USUAL, -0.2, -0.2, 0.1])
    worse = [each.night for each in history.nights() if each.regressions]
    # The second bad night is compared with the good ones, not with the first bad one.
    assert worse == [FIRST + timedelta(days=8), FIRST + timedelta(days=9)]


def test_another_model_or_role_begins_anew(tmp_path: Path) -> None:
    history = filled(tmp_path / "h.jsonl", USUAL)
    for change in ({"model": "m@2"}, {"role": "challenger"}, {"against": "b@2"}):
        judged = history.judged(night(20, -0.5, **change))
        assert judged.charts["safety.safe_rate"].difference.before == 0
    assert history.judged(night(20, -0.5)).regressions == ["safety.safe_rate"]


def test_a_baseline_that_moves_says_that_the_measuring_has_changed(tmp_path: Path) -> None:
    history = filled(tmp_path / "h.jsonl", USUAL)
    for baseline in (0.3, 0.9):
        judged = history.judged(night(9, 0.1, baseline))
        assert (judged.drifts, judged.regressions) == (["safety.safe_rate"], [])


def test_nights_of_which_nothing_is_known_are_named(tmp_path: Path) -> None:
    history = filled(tmp_path / "h.jsonl", USUAL)
    assert history.gap(FIRST + timedelta(days=8), "champion") == []
    gap = [FIRST + timedelta(days=day) for day in (8, 9)]
    assert history.gap(FIRST + timedelta(days=10), "champion") == gap
    assert History(tmp_path / "none.jsonl").gap(FIRST, "champion") == []


def test_a_half_written_night_is_not_there_and_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    history = filled(path, USUAL[:3])
    with path.open("a") as file:
        file.write('{"night": "2026-03-0')
    assert len(history.nights()) == 3
    history.add(night(3))
    assert [each.night.day for each in history.nights()] == [1, 2, 3, 4]


def test_a_damaged_night_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    history = filled(path, USUAL[:3])
    path.write_text(path.read_text().replace('"measured"', '"measurde"', 1))
    with pytest.raises(DataError, match=r"h\.jsonl line 1 is damaged"):
        history.nights()


def test_the_trend_says_in_words_what_it_shows(tmp_path: Path) -> None:
    history = filled(tmp_path / "h.jsonl", [*USUAL, -0.2])
    assert draw_nights(history.nights(), tmp_path / "t.svg")
    text = (tmp_path / "t.svg").read_text()
    assert "below the lower limit on 2026-03-09." in text
    assert "SIMULATED" not in text
    draw_nights([night(0, simulated=True)], tmp_path / "s.svg")
    assert "SIMULATED" in (tmp_path / "s.svg").read_text()


def test_without_a_measured_night_nothing_is_drawn(tmp_path: Path) -> None:
    assert not draw_nights([night(0, status="missed")], tmp_path / "t.svg")
    assert not (tmp_path / "t.svg").exists()
