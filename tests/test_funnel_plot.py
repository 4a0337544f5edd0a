"""The funnel as a picture: each reason with its count, the same each time, readable aloud."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from ccai_core.funnel_plot import describe, draw_funnel
from ccai_core.preferences import Funnel
from tests.report_sample import funnel

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def bars(svg: str) -> list[tuple[str, float, float]]:
    """Return colour, left end and width of each bar, from top to bottom."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        style, places = path.get("style", ""), path.get("d", "").replace("\n", " ").split()
        if "fill: #" in style and "clip-path" in path.attrib:
            x = [float(v) for v in places[1::3]]
            found.append((style.partition("fill: ")[2][:7], min(x), max(x) - min(x)))
    return found


def test_every_step_is_named_and_counted() -> None:
    shown = texts(draw_funnel(funnel()))
    for what, count in funnel().steps():
        assert what in shown
        assert any(text.startswith(f"{count:,}  (") for text in shown)


def test_what_is_lost_begins_where_the_loss_before_it_ended() -> None:
    drawn = bars(draw_funnel(funnel()))
    whole, *lost, accepted, surplus, pairs = drawn
    unit = whole[2] / funnel().candidates
    ends = whole[1] + whole[2]
    for (_, left, width), count in zip(lost, funnel().rejected.values(), strict=True):
        assert abs(width - count * unit) < 0.01
        assert abs(left + width - ends) < 0.01
        ends = left
    # The reasons explain all that did not pass: what is left is what passed.
    assert abs(accepted[1] + accepted[2] - ends) < 0.01
    assert abs(surplus[1] - (pairs[1] + pairs[2])) < 0.01
    assert len({colour for colour, *_ in lost}) == 1
    assert lost[0][0] not in (whole[0], surplus[0])


def test_the_same_funnel_is_the_same_file_and_another_is_another() -> None:
    assert draw_funnel(funnel()) == draw_funnel(funnel())
    assert draw_funnel(funnel()) != draw_funnel(funnel(pairs=180, surplus=51))


def test_it_is_described_for_those_who_do_not_see_it() -> None:
    root = ElementTree.fromstring(draw_funnel(funnel()))
    assert root.get("role") == "img"
    named = {e.get("id"): e.text for e in root.iter() if e.get("id")}
    words = [named[name] for name in root.get("aria-labelledby", "").split()]
    assert words == ["From candidates to pairs", describe(funnel())]
    assert "592 candidates; rejected: 121 the revision is the response again" in describe(funnel())


def test_nothing_rejected_and_nothing_made_can_be_drawn() -> None:
    empty = Funnel(
        episodes=0, candidates=0, rejected={}, accepted=0, surplus=0, pairs=0, per_principle={},
        calls=0, tokens=0, shortfall=5,
    )  # fmt: skip
    assert "Candidates" in texts(draw_funnel(empty))
    assert "rejected: none" in describe(empty)
