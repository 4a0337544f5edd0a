"""What is shown while a flow runs, where the output is a file."""

from __future__ import annotations

import pytest

from flows import console as module
from flows.console import Console, current_show
from tasks.progress import Progress
from tasks.site import Site, show_nothing


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_line_with_rate_and_time_left_at_most_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    for second in range(31):
        console.show("training", 2 * second, 120, "loss 0.6", False)
        clock.now += 1
    assert lines(capsys) == [
        "training: 0/120, loss 0.6",
        "training: 20/120, 2.0/s, 0:50 left, loss 0.6",
        "training: 40/120, 2.0/s, 0:40 left, loss 0.6",
        "training: 60/120, 2.0/s, 0:30 left, loss 0.6",
    ]


def test_a_slow_step_says_seconds_each(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.show("training", 0, 100, "", False)
    clock.now += 90
    console.show("training", 10, 100, "", False)
    assert lines(capsys)[-1] == "training: 10/100, 9.0 s each, 13:30 left"


def test_a_resumed_steps_rate_starts_at_its_first_count(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    console.show("pairs", 400, 500, "", False)
    clock.now += 20
    console.show("pairs", 420, 500, "", False)
    assert lines(capsys) == ["pairs: 400/500", "pairs: 420/500, 1.0/s, 1:20 left"]


def test_stages_of_a_step_have_rates_of_their_own_and_the_last_line_comes_at_once(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    console.show("evaluation", 0, 1000, "baseline", False)
    clock.now += 1
    console.show("evaluation", 1000, 1000, "baseline", False)
    clock.now += 10
    console.show("evaluation", 0, 50, "judge", False)
    clock.now += 10
    console.show("evaluation", 10, 50, "judge", False)
    clock.now += 1
    console.show("evaluation", 50, 50, "judge", False)
    console.show("evaluation", 50, 50, "8 measures", True)
    console.show("evaluation", 50, 50, "8 measures", True)
    assert lines(capsys) == [
        "evaluation: 0/1000, baseline",
        "evaluation: 0/50, judge",
        "evaluation: 10/50, 1.0/s, 0:40 left, judge",
        "evaluation: 50/50, 8 measures",
    ]


def test_text_of_models_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show("model", 0, 1, "[red]a[/red] [/]", False)
    assert lines(capsys) == ["model: 0/1, [red]a[/red] [/]"]


def test_only_a_live_console_is_found_by_flows(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    assert current_show() is show_nothing
    with console.live():
        current_show()("model", 1, 1, "tiny", True)
    assert current_show() is show_nothing
    assert lines(capsys) == ["model: 1/1, tiny"]


def test_progress_ends_where_it_was_heading(capsys: pytest.CaptureFixture[str]) -> None:
    """Outside a flow run it says the same on the terminal."""
    site = Site(None, None, None, None, show=Console().show)  # type: ignore[arg-type]
    pairs = Progress(site, "preference pairs", unit="pairs")
    pairs.update(0, 500)
    pairs.finish("500 pairs")
    Progress(site, "training", unit="steps").finish("nothing to do")
    assert lines(capsys) == [
        "preference pairs: 0/500", "preference pairs: 500/500, 500 pairs",
        "training: 1/1, nothing to do",
    ]  # fmt: skip
