"""Expert review: blinded answers to people, what they think of them back as numbers.

made = build_package(prompts, DesignConfig(), Path("expert_review_package.zip"), key_file)
review = collect_reviews([Path("review-01.json")], read_key(key_file))
"""

from ccai_core.human_evaluation.answers import ReviewPrompt, read_answers
from ccai_core.human_evaluation.collect import Reviews, collect_reviews
from ccai_core.human_evaluation.design import DesignConfig
from ccai_core.human_evaluation.key import ReviewKey, read_key
from ccai_core.human_evaluation.package import build_package
from ccai_core.human_evaluation.results import HumanEvaluation, evaluate_reviews

__all__ = [
    "DesignConfig",
    "HumanEvaluation",
    "ReviewKey",
    "ReviewPrompt",
    "Reviews",
    "build_package",
    "collect_reviews",
    "evaluate_reviews",
    "read_answers",
    "read_key",
]
