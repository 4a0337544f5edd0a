"""What a reader of an evaluation must know beside the numbers.

result_notes = notes(items, baseline, trained, judged, metrics, too_few=[])
"""

from __future__ import annotations

from collections.abc import Sequence

from ccai_core.evaluation import statistics
from ccai_core.evaluation.items import EvaluationItems
from ccai_core.evaluation.results import Metric
from ccai_core.evaluation.suite import Answers, Judged


def notes(
    items: EvaluationItems,
    baseline: Answers,
    trained: Answers,
    judged: Judged,
    metrics: Sequence[Metric],
    too_few: Sequence[str],
) -> list[str]:
    """Return one sentence or two for each fact, the most important first."""
    return [
        *_about_judge(baseline, trained, judged),
        *items.notes,
        *_about_lengths(baseline, trained, judged),
        *_about_size(judged, metrics),
        *([f"Too few items to measure: {', '.join(too_few)}."] if too_few else []),
        f"Weights of both models were {baseline.dtype}"
        + ("." if baseline.dtype == trained.dtype else f" (baseline) and {trained.dtype}."),
        "Examples are the first prompts in a fixed order, not chosen by score.",
    ]


def _about_judge(baseline: Answers, trained: Answers, judged: Judged) -> list[str]:
    told = []
    if judged.card.weak:
        told.append(
            "The judge is weak: on answers whose quality is known it is not reliably right. Take "
            "judged measures as a test of the machinery; read the examples, or name a stronger "
            "judge."
        )
    told.append(
        "Judged measures compare the two models; their level depends on the judge's leaning to Yes "
        "or No, which was estimated on other, shorter answers."
    )
    for card in judged.card.panel or (judged.card,):
        if card.model in (baseline.model, trained.model):
            which = "baseline" if card.model == baseline.model else "trained model"
            who = "One of the judges" if judged.card.panel else "The judge"
            told.append(
                f"{who} is the {which} itself and may favour answers that are like its own."
            )
    return told


def _about_lengths(baseline: Answers, trained: Answers, judged: Judged) -> list[str]:
    texts = [
        text
        for text in baseline.completions
        if baseline.completions[text].text and trained.completions[text].text
    ]
    told = []
    if texts:
        before, after = (
            sum(len(a.completions[t].text.split()) for t in texts) / len(texts)
            for a in (baseline, trained)
        )
        told.append(
            f"Mean length of answers: {before:.0f} words (baseline), {after:.0f} words (trained)."
        )
    cut = [
        sum(c.finish_reason == "length" for c in a.completions.values())
        for a in (baseline, trained)
    ]
    if any(cut):
        told.append(
            f"Cut off by the token limit: {cut[0]} (baseline) and {cut[1]} (trained) of "
            f"{len(baseline.completions)} answers. They count as they are."
        )
    return told + _length_bias(baseline, trained, judged)


def _length_bias(baseline: Answers, trained: Answers, judged: Judged) -> list[str]:
    lengths, scores = [], []
    for text, pair in judged.contemplative.items():
        for answers, score in zip((baseline, trained), pair, strict=True):
            lengths.append(len(answers.completions[text].text.split()))
            scores.append(score)
    rho = statistics.rank_correlation(lengths, scores)
    if rho is None:
        return []
    return [
        f"Rank correlation between an answer's length and its contemplative score: {rho:+.2f} "
        "(judges often like long answers)."
    ]


def _about_size(judged: Judged, metrics: Sequence[Metric]) -> list[str]:
    told = []
    if pairs := list(judged.contemplative.values()):
        told += _detectable("contemplative.overall", pairs, metrics)
    if pairs := list(judged.safety.values()):
        told += _detectable("safety.p_safe", pairs, metrics)
    for metric in metrics:
        if metric.id in {"safety.safe_rate", "contemplative.preference", "capability.overall"}:
            least = statistics.LEAST_CHANGES
            told.append(
                f"{metric.title} (n = {metric.n}): fewer than {least} changed items "
                f"({min(1.0, least / metric.n):.0%} of them) cannot reach p < 0.05, even if all "
                "change the same way."
            )
    return told


def _detectable(
    name: str, pairs: Sequence[tuple[float, float]], metrics: Sequence[Metric]
) -> list[str]:
    metric = next((m for m in metrics if m.id == name), None)
    if metric is None:
        return []
    effect = statistics.detectable([b for b, _ in pairs], [t for _, t in pairs])
    if not effect:
        return []
    return [
        f"{metric.title} (n = {metric.n}): a difference of about {effect:.3f} would be found in 4 "
        "of 5 such evaluations; smaller ones mostly would not."
    ]
