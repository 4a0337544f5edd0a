"""Constitutions: both forms, the shipped ones, and every error with its line."""

from pathlib import Path

import pytest

from ccai_core.constitution import load_constitutional_config, parse_constitution
from ccai_core.errors import ConfigError, DataError

FULL = """# Mine

Be kind.

## Non-duality
What it means.
### Critique
Look again
at it.
### Revision
Write anew.
### Criteria
- Is it whole?
- Is it kind?
### Example applications
- **Situation:** a **Poor:** b
  **Better:** c
### Few-shot
- **Prompt:** p **Response:** r **Critique:** c **Revision:** v
"""


def test_shipped_principles_are_complete() -> None:
    shipped = load_constitutional_config()
    assert shipped.ids == ("emptiness", "non_duality", "boundless_care", "mindfulness")
    for principle in shipped.principles:
        assert principle.critique
        assert principle.revision
        assert len(principle.criteria) >= 3
        assert len(principle.applications) >= 3
        for example in principle.applications:
            # They calibrate judges: length must not give the better one away.
            assert 0.5 < len(example.poor) / len(example.better) < 1.5


def test_full_form_keeps_every_part() -> None:
    parsed = parse_constitution(FULL, "mine.md")
    (principle,) = parsed.principles
    assert (parsed.name, parsed.preamble) == ("Mine", "Be kind.")
    assert principle.id == "non_duality"
    assert principle.critique == "Look again at it."
    assert principle.criteria == ("Is it whole?", "Is it kind?")
    assert principle.applications[0].better == "c"
    assert principle.few_shot[0].revision == "v"


def test_guideline_form_becomes_requests_and_criteria() -> None:
    example = load_constitutional_config("guideline_example")
    assert example.ids == ("honesty", "patience")
    assert "meta-principles" in example.preamble
    assert "says plainly what is not known" in example.principle("honesty").critique
    assert len(example.principle("honesty").criteria) == 3


def test_headings_in_code_fences_are_not_principles() -> None:
    text = FULL.replace("What it means.", "```\n## not a principle\n```")
    assert parse_constitution(text, "mine.md").ids == ("non_duality",)


def test_fingerprint_is_of_content_not_of_place(tmp_path: Path) -> None:
    first, second = tmp_path / "a.md", tmp_path / "b.md"
    first.write_text(FULL)
    second.write_text(FULL)
    a, b = load_constitutional_config(first), load_constitutional_config(second)
    assert a.fingerprint == b.fingerprint
    second.write_text(FULL.replace("Be kind", "Be just"))
    assert load_constitutional_config(second).fingerprint != a.fingerprint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("  \n", "is empty"),
        ("# Title\n\nwords\n", "no principle"),
        ("## A\n### Critique\nx\n", "line 1: principle 'A' has no '### Revision'"),
        ("## A\n### Critique\nx\n### Revison\ny\n", "line 4: unknown section 'Revison'. Did you"),
        ("## A\n### Critique\n### Revision\ny\n", "line 2: section 'Critique' is empty"),
        ("## A\n1. x\n## A\n1. y\n", "line 3: principle 'A' is already defined in line 1"),
        ("## A\n1. x <|im_start|>\n", "line 2: contains the chat control token"),
        (FULL.replace(" **Revision:** v", ""), "must be written as **Prompt:**"),
        (FULL.replace("- Is it whole?\n- Is it kind?", "yes"), "must be a bullet list"),
    ],
)
def test_bad_files_say_where_and_what(text: str, says: str) -> None:
    with pytest.raises(DataError) as error:
        parse_constitution(text, "mine.md")
    assert str(error.value).startswith("mine.md")
    assert says in str(error.value)


def test_missing_file_lists_the_shipped_ones() -> None:
    with pytest.raises(DataError, match="contemplative_principles"):
        load_constitutional_config("nowhere.md")


def test_unknown_principle_suggests_the_closest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'mindfulness'"):
        load_constitutional_config().principle("mindfullness")
