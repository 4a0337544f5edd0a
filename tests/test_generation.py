"""What pairs are made of: which prompts may be used, on what terms, and what counts as the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccai_core.constitution import load_constitutional_config
from ccai_core.dataset_info import SourceLicence
from ccai_core.errors import DataError
from ccai_core.generation import PairRequest, generate_pairs, licences
from ccai_core.models import ModelRef
from ccai_core.preferences import PreferenceConfig
from ccai_core.prompts.splits import split_of
from ccai_core.types import Prompt, user

MODEL = ModelRef(name="m", revision="1", path=Path("none"), requested="m")
TRAIN, TEST = (
    next(t for t in (f"Question {n}?" for n in range(99)) if split_of(t) == side)
    for side in ("train", "test")
)


def prompt(**changes: object) -> Prompt:
    values = {"id": "p1", "text": TRAIN, "source": "mine", "split": "train", **changes}
    return Prompt.model_validate(values)


def request(*prompts: Prompt, **config: object) -> PairRequest:
    return PairRequest(
        model=MODEL,
        constitution=load_constitutional_config(),
        prompts=prompts,
        max_pairs=4,
        config=PreferenceConfig.model_validate(config),
    )


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (prompt(source="practice", restricted=True), "practice are members-only"),
        (prompt(text=TEST, id="p7"), "1 prompts are on the test side by their text (first: p7)"),
    ],
)
def test_prompts_that_may_not_be_used_are_refused_before_a_model_is_looked_for(
    bad: Prompt, says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        generate_pairs(request(prompt(), bad), tmp_path / "out", tmp_path / "journal.jsonl")
    assert says in str(caught.value)
    assert bad.text not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_terms_are_as_given_or_as_published_or_not_known() -> None:
    prompts = [prompt(source=name) for name in ("mine", "ailuminate-demo", "scenarios", "nowhere")]
    mine = SourceLicence(name="mine", licence="MIT")
    terms = {each.name: each for each in licences(prompts, [mine])}
    assert {name: each.licence for name, each in terms.items()} == {
        "ailuminate-demo": "CC-BY-4.0", "mine": "MIT", "nowhere": "NOASSERTION",
        "scenarios": "Apache-2.0",
    }  # fmt: skip
    assert [name for name, each in terms.items() if each.harmful] == ["ailuminate-demo"]


def test_one_members_only_prompt_makes_its_source_so() -> None:
    (terms,) = licences([prompt(), prompt(restricted=True), prompt()])
    assert terms.restricted


def test_a_request_is_known_by_what_changes_its_pairs() -> None:
    base = request(prompt()).inputs
    for changed in (
        prompt(text=f"{TRAIN}!"), prompt(hazard="vcr"), prompt(context=(user("Hello"),)),
        prompt(source="other"),
    ):  # fmt: skip
        assert request(changed).inputs != base
    assert request(prompt(criteria=("Is it kind?",), tags=("a",))).inputs == base
    known = SourceLicence(name="mine", licence="MIT")
    assert request(prompt()).model_copy(update={"sources": (known,)}).inputs == base


def test_how_much_is_computed_at_once_is_no_part_of_what_is_asked_for() -> None:
    base = request(prompt())
    for resources in ({"batch_size": 4}, {"batch_size": 512}):
        assert request(prompt(), generation=resources).inputs == base.inputs
    assert request(prompt(), generation={"temperature": 0.5}).inputs != base.inputs
