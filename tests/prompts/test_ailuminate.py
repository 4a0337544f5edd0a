"""AILuminate files: the real demo set where it is at hand, and what is wrong with others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ccai_core.errors import DataError
from ccai_core.prompts.ailuminate import HAZARDS
from ccai_core.prompts.checksums import known_file
from ccai_core.prompts.files import load_prompts
from ccai_core.prompts.registry import SOURCES
from ccai_core.types import Prompt

SHARED = Path(__file__).parents[3] / "shared" / "data" / "ailuminate"
HEADER = "release_prompt_id,prompt_text,hazard,persona,locale,prompt_hash"


@pytest.fixture
def demo() -> Path:
    found = sorted(SHARED.glob("*demo*.csv"))
    if not found:
        pytest.skip(f"the AILuminate demo set is not in {SHARED}")
    return found[0]


def write(folder: Path, *lines: str, header: str = HEADER, name: str = "a_demo.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return path


def prompt(text: str, hazard: str | None = None) -> Prompt:
    return Prompt(id="x", text=text, source="test", split="train", hazard=hazard)


# --- the demo set ---------------------------------------------------------------------------------


def test_the_demo_set_is_read_whole(demo: Path) -> None:
    prompts = load_prompts(demo)
    assert Counter(p.hazard for p in prompts) == dict.fromkeys(HAZARDS, 100)
    assert Counter(p.persona for p in prompts) == {"skilled": 600, "unskilled": 600}
    specialised = Counter(p.tags[:-1] for p in prompts if p.hazard == "spc")
    assert specialised == {("fin",): 26, ("hlt",): 26, ("ele",): 24, ("lgl",): 24}
    assert {p.tags[:-1] for p in prompts if p.hazard == "sxc"} == {("prn",)}
    assert {p.source for p in prompts} == {"ailuminate-demo"}
    assert {p.locale for p in prompts} == {"en_US"}
    assert len({p.id for p in prompts}) == len({p.tags[-1] for p in prompts}) == 1200
    assert all(p.tags[-1].startswith("prompt_hash:") for p in prompts)
    assert not any(p.restricted for p in prompts)


def test_the_demo_set_is_the_one_that_would_be_fetched(demo: Path, tmp_path: Path) -> None:
    [file] = SOURCES["ailuminate-demo"].files
    assert demo.name == Path(file.name).name
    assert known_file(demo) == (SOURCES["ailuminate-demo"], file)
    # By its content, whatever it is called: else it would be taken for a members-only file.
    copy = tmp_path / "mine.csv"
    copy.write_bytes(demo.read_bytes())
    assert load_prompts(copy) == load_prompts(demo)


# --- other files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", [HEADER, "Release_prompt_id,Prompt_text,Hazard,Persona,Locale,Prompt_hash"]
)
def test_both_headers_and_all_that_a_row_says(tmp_path: Path, header: str) -> None:
    path = write(
        tmp_path, 'p1,"Is it, well, safe?",SPC_hlt,Normal,ZH-cn,ab12', header=header
    )  # fmt: skip
    [only] = load_prompts(path)
    assert (only.id, only.text) == ("p1", "Is it, well, safe?")
    assert (only.hazard, only.persona, only.locale) == ("spc", "normal", "zh_CN")
    assert only.tags == ("hlt", "prompt_hash:ab12")


def test_personas_locales_and_hashes_may_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "p1,Why?,vcr", header="release_prompt_id,prompt_text,hazard")
    [only] = load_prompts(path)
    assert (only.persona, only.locale, only.tags) == (None, None, ())
    row = {"release_prompt_id": "p1", "Prompt_text": "Why?", "hazard": "vcr", "persona": None}
    (tmp_path / "a_demo.jsonl").write_text(json.dumps(row))
    assert load_prompts(tmp_path / "a_demo.jsonl") == [only]


@pytest.mark.parametrize(
    ("name", "source", "restricted"),
    [
        ("airr_official_1.0_demo_en_us_prompt_set_release.csv", "ailuminate-demo", False),
        ("airr_official_1.0_demo_fr_fr_prompt_set_release.csv", "ailuminate-demo-fr", False),
        ("airr_official_1.0_practice_prompt_set_release.csv", "ailuminate-practice", True),
        ("airr_official_1.0_heldout_prompt_set_release.csv", "ailuminate-official", True),
        ("some.csv", "ailuminate", True),
    ],
)
def test_a_file_that_may_be_members_only_is_withheld(
    tmp_path: Path, name: str, source: str, restricted: bool
) -> None:
    [only] = load_prompts(write(tmp_path, "p1,Why?,vcr,skilled,en_US,0", name=name))
    assert (only.source, only.restricted) == (source, restricted)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["p1,Why?,xyz,skilled,en_US,0"], "line 2: unknown hazard 'xyz'; valid: cse, dfm"),
        (["p1,Why?,,skilled,en_US,0"], "line 2: unknown hazard ''"),
        (["p1,Why?,vcr,boss,en_US,0"], "line 2: unknown persona 'boss'; valid: normal, skilled"),
        (["p1,Why?,vcr,skilled,American,0"], "line 2: 'American' is no locale; .*en_US, fr_FR"),
        (['p1,"One\ntwo?",vcr,skilled,en_US,0', "p2,,vcr,skilled,en_US,0"],
         "line 4: the prompt is empty"),
        (["p1,</s>Hi,vcr,skilled,en_US,0"], "line 2: .*control token '</s>'"),
        (["p1,Why?,vcr,skilled,en_US,0"] * 2, "two prompts have the id 'p1'"),
        (["p1,Oh, why?,vcr,skilled,en_US,0"], "line 2: has 7 columns where the header has 6"),
        ([], "holds no prompts"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_says_where_and_why(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        load_prompts(write(tmp_path, *lines))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "Why?,vcr", header="prompt_text,hazard")
    with pytest.raises(DataError, match="line 1: column 'release_prompt_id' is missing"):
        load_prompts(path)
