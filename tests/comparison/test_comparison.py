"""Several evaluations side by side: what is paired, what is refused, and what is claimed."""

from __future__ import annotations

import pytest

from ccai_core.comparison.build import BuildConfig, build_comparison
from ccai_core.comparison.reading import read_results, refuse_unlike
from ccai_core.comparison.results import Comparison, Measure
from ccai_core.comparison.words import headline
from ccai_core.errors import ConfigError, DataError
from ccai_core.evaluation.results import EvaluationResult
from tests.comparison.planted_results import asked, result, saved, sizes


def compare(folder, *results: EvaluationResult, **config) -> Comparison:
    given = read_results(saved(folder, *results))
    return build_comparison(given, BuildConfig(**config), "2026-11-27T00:00:00+00:00", "c")


def measure(comparison: Comparison, name: str) -> Measure:
    return next(m for m in comparison.measures if m.id == name)


def difference(comparison: Comparison, name: str, model: str, against: str):
    (found,) = (
        d for d in measure(comparison, name).differences if (d.model, d.against) == (model, against)
    )
    return found


def trend(comparison: Comparison, name: str, series: str):
    return next(t for t in measure(comparison, name).trends if t.series == series)


def test_levels_and_own_differences_are_those_of_the_evaluations(tmp_path):
    one, two = result(), result(trained="other@3", shares=(0.4, 0.6))
    found = compare(tmp_path, one, two)
    assert [m.label for m in found.models] == ["base", "tuned", "other"]
    safe = measure(found, "safety.safe_rate")
    assert [(lv.model, lv.value) for lv in safe.levels] == [
        ("base", one.metrics[0].baseline),
        ("tuned", one.metrics[0].trained),
        ("other", two.metrics[0].trained),
    ]
    own = difference(found, "safety.safe_rate", "other", "base")
    assert own.own
    assert own.difference == two.metrics[0].difference
    assert (own.origin, own.pointer) == (1, "/metrics/0/difference")


def test_models_of_two_evaluations_are_paired_by_item(tmp_path):
    found = compare(tmp_path, result(), result(trained="other@3", shares=(0.4, 0.6)))
    between = difference(found, "safety.safe_rate", "other", "tuned")
    assert not between.own
    assert between.n == 60
    assert between.difference.estimate == pytest.approx(-0.2)
    # 12 items were lost and none was won, which only pairing by item can tell.
    assert between.p_value == pytest.approx(2 * 0.5**12)
    perplexity = difference(found, "capability.perplexity", "other", "tuned")
    assert perplexity.difference.estimate == pytest.approx(14 - 12, abs=0.2)
    means = difference(found, "contemplative.overall", "other", "tuned")
    assert means.difference.high < -0.19


def test_only_items_that_both_have_are_paired(tmp_path):
    other = result(trained="other@3", shares=(0.4, 0.6))
    metric = other.metrics[0]
    few = metric.items.model_copy(
        update={
            "names": (*metric.items.names[:10], *(f"new-{i}" for i in range(50))),
        }
    )
    other = other.model_copy(
        update={"metrics": (metric.model_copy(update={"items": few}), *other.metrics[1:])}
    )
    found = compare(tmp_path, result(), other)
    assert difference(found, "safety.safe_rate", "other", "tuned").n == 10


def test_without_items_there_is_nothing_between_models(tmp_path):
    found = compare(tmp_path, result(keep=False), result(trained="other@3", keep=False))
    assert all(d.own for m in found.measures for d in m.differences)
    assert any("keep no values by item" in note for note in found.notes)


def test_every_model_is_set_against_every_baseline(tmp_path):
    found = compare(tmp_path, result(), result(baseline="rival@5", trained="other@3"))
    against = {
        (d.model, d.against): d.own for d in measure(found, "capability.overall").differences
    }
    assert against == {
        ("tuned", "base"): True,
        ("other", "rival"): True,
        ("tuned", "rival"): False,
        ("other", "base"): False,
        ("other", "tuned"): False,
    }


def test_p_values_are_corrected_for_all_tests_of_their_kind(tmp_path):
    found = compare(tmp_path, result(), result(trained="other@3", shares=(0.4, 0.55)))
    own = [d for m in found.measures for d in m.differences if d.own]
    smallest = min(d.p_value for d in own)
    (first, *_) = [d for d in own if d.p_value == smallest]
    assert first.p_corrected == pytest.approx(min(1.0, smallest * len(own)))
    assert all(d.p_corrected >= d.p_value for m in found.measures for d in m.differences)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"prompts": "p2"}, "prompts: p1"),
        ({"suite": "full"}, "suite: poc"),
        ({"judge": "other-judge@9"}, "judge: judge@1"),
        ({"response_tokens": 64}, "response tokens: not said"),
    ],
)
def test_what_differs_is_named(tmp_path, changed, told):
    other = result(trained="other@3", asked=asked(**changed))
    given = read_results(saved(tmp_path, result(), other))
    with pytest.raises(DataError, match="cannot be compared") as refused:
        refuse_unlike(given, unjudged=False)
    assert told in str(refused.value)
    assert "evaluation-0.json" in str(refused.value)


def test_other_judges_do_not_matter_where_none_judges(tmp_path):
    other = result(trained="other@3", asked=asked(judge="other-judge@9"))
    with pytest.raises(DataError, match="--unjudged"):
        compare(tmp_path, result(), other)
    found = compare(tmp_path, result(), other, unjudged=True)
    assert {m.id for m in found.measures} == {"capability.overall", "capability.perplexity"}
    assert found.judge is None


def test_an_older_result_without_a_record_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"record\.json says it"):
        compare(tmp_path, result(asked={}))


def test_the_same_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="Name it once"):
        compare(tmp_path, result(), result())
    with pytest.raises(DataError, match="Name one of them"):
        compare(tmp_path, result(), result(shares=(0.4, 0.5)))
    with pytest.raises(ConfigError, match="Name the evaluations"):
        read_results([])


def test_perplexities_of_different_tokenizers_are_not_subtracted(tmp_path):
    other = result(baseline="rival@5", trained="other@3", tokens=(12,) * 16)
    found = compare(tmp_path, result(), other)
    assert all(d.own for d in measure(found, "capability.perplexity").differences)
    assert any("cut words differently" in note for note in found.notes)


def test_a_model_that_was_measured_twice_unlike_is_told(tmp_path):
    found = compare(tmp_path, result(), result(trained="other@3", shares=(0.5, 0.8)))
    assert any("base was measured more than once" in note for note in found.notes)
    (base, *_) = measure(found, "safety.safe_rate").levels
    assert (base.model, base.value.estimate, base.origin) == ("base", 0.4, 0)


def test_better_is_said_only_where_the_interval_says_so(tmp_path):
    found = compare(
        tmp_path, result(), result(trained="equal@3", shares=(0.4, 0.4)),
        result(trained="worse@4", shares=(0.4, 0.1)),
    )  # fmt: skip
    lines = [line for line in headline(found) if line.startswith("Safe answers")]
    assert "tuned against base: better" in lines[0]
    assert "equal against base: no difference shown" in lines[1]
    assert "worse against base: worse" in lines[2]
    weak = compare(tmp_path, result(weak=True))
    assert "better (by a weak judge)" in headline(weak)[0]


def test_models_of_the_same_name_are_told_apart(tmp_path):
    found = compare(tmp_path, result("a/model@1111", "b/model@2222"))
    assert [m.label for m in found.models] == ["model@1111", "model@2222"]


def test_a_planted_line_over_size_is_found(tmp_path):
    found = compare(tmp_path, *sizes((0.2, 0.4), (0.3, 0.6), (0.4, 0.8)))
    trends = {t.series: t for t in measure(found, "safety.safe_rate").trends}
    assert trends["before training"].slope.estimate == pytest.approx(0.1)
    assert trends["after training"].slope.estimate == pytest.approx(0.2)
    change = trends["difference"].slope
    assert change.estimate == pytest.approx(0.1)
    assert 0 < change.low < change.estimate < change.high
    assert trends["after training"].worst_miss == pytest.approx(0)
    assert trends["after training"].resampled == "items"
    flat = {t.series: t for t in measure(found, "capability.overall").trends}["difference"].slope
    assert (flat.low, flat.estimate, flat.high) == (0, 0, 0)


def test_a_size_that_is_off_the_line_is_told(tmp_path):
    found = compare(tmp_path, *sizes((0.2, 0.2), (0.2, 0.8), (0.2, 0.2)))
    bent = trend(found, "safety.safe_rate", "after training")
    assert bent.slope.estimate == pytest.approx(0, abs=1e-9)
    assert bent.worst_miss > 0.5


def test_a_trend_needs_three_sizes(tmp_path):
    two = compare(tmp_path, *sizes((0.2, 0.4), (0.3, 0.6)))
    assert not any(m.trends for m in two.measures)
    assert any("No trend over size" in note for note in two.notes)


def test_sizes_can_be_given(tmp_path):
    models = [(f"base-{i}@1", f"tuned-{i}@2") for i in range(3)]
    results = [result(b, t, (0.2, 0.3 + 0.1 * i)) for i, (b, t) in enumerate(models)]
    assert any("Size not known" in note for note in compare(tmp_path, *results).notes)
    given = {name: 10 ** (8 + i) for i, pair in enumerate(models) for name in pair}
    found = compare(tmp_path, *results, parameters=given)
    assert len(measure(found, "safety.safe_rate").trends) == 3
    with pytest.raises(ConfigError, match="Did you mean 'base-0@1'"):
        compare(tmp_path, *results, parameters={"base-0@": 5})


def test_without_items_a_trend_draws_from_intervals(tmp_path):
    results = [result(f"b{i}@1", f"t{i}@1", (0.2, 0.3 + 0.1 * i), keep=False) for i in range(3)]
    given = {f"{k}{i}@1": 10 ** (8 + i) for i in range(3) for k in "bt"}
    found = compare(tmp_path, *results, parameters=given)
    after = trend(found, "safety.safe_rate", "after training")
    assert after.resampled == "intervals"
    assert after.slope.low < 0.1 < after.slope.high
