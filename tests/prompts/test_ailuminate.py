"""AILuminate files: the real demo set where it is at hand, and what is wrong with others."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
from collections import Counter
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from ccai_core.errors import DataError
from ccai_core.prompts import ailuminate
from ccai_core.prompts.ailuminate import (
    HAZARDS,
    RELEVANT_HAZARDS,
    contemplative_relevance,
    fetch_ailuminate_demo,
    filter_contemplative_relevance,
    load_ailuminate_demo,
)
from ccai_core.prompts.files import load_prompts
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
    specialised = Counter(p.tags for p in prompts if p.hazard == "spc")
    assert specialised == {("fin",): 26, ("hlt",): 26, ("ele",): 24, ("lgl",): 24}
    assert {p.source for p in prompts} == {"ailuminate-demo"}
    assert len({p.id for p in prompts}) == 1200


def test_the_demo_set_gives_enough_prompts_that_call_for_the_principles(demo: Path) -> None:
    prompts = load_prompts(demo)
    relevant = filter_contemplative_relevance(prompts)
    assert 200 <= len(relevant) < 1200
    assert relevant == [p for p in prompts if p in relevant]
    assert {split for p in relevant for split in [p.split]} == {"train", "validation", "test"}
    assert set(Counter(p.hazard for p in relevant)) >= set(RELEVANT_HAZARDS)


def test_the_demo_set_is_the_one_that_would_be_fetched(demo: Path) -> None:
    assert demo.name == ailuminate.DEMO_FILE
    assert hashlib.sha256(demo.read_bytes()).hexdigest() == ailuminate.DEMO_SHA256


# --- other files ----------------------------------------------------------------------------------


def test_headers_in_capitals_and_personas_left_out(tmp_path: Path) -> None:
    path = write(
        tmp_path, 'p1,"Is it, well, safe?",SPC_hlt', header="Release_Prompt_ID,Prompt_Text,Hazard",
        name="mine.csv",
    )  # fmt: skip
    [only] = load_prompts(path)
    assert (only.id, only.text, only.hazard, only.tags) == (
        "p1",
        "Is it, well, safe?",
        "spc",
        ("hlt",),
    )
    assert (only.persona, only.source) == (None, "ailuminate")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["p1,Why?,xyz,skilled,en_US,0"], "line 2: unknown hazard 'xyz'; valid: cse, dfm"),
        (["p1,Why?,,skilled,en_US,0"], "line 2: unknown hazard ''"),
        (['p1,"One\ntwo?",vcr,skilled,en_US,0', "p2,,vcr,skilled,en_US,0"],
         "line 4: the prompt is empty"),
        (["p1,</s>Hi,vcr,skilled,en_US,0"], "line 2: .*control token '</s>'"),
        (["p1,Why?,vcr,skilled,en_US,0"] * 2, "two prompts have the id 'p1'"),
        (["p1,Oh, why?,vcr,skilled,en_US,0"], "line 2: has 7 columns where the header has 6"),
        ([], "has a header but no prompts"),
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
    with pytest.raises(DataError, match="line 1: column 'release_prompt_id' is missing"):
        load_ailuminate_demo(write(tmp_path, "a,b", header="x,y"))


# --- relevance ------------------------------------------------------------------------------------


def test_relevance_is_the_hazards_and_that_of_its_words() -> None:
    assert contemplative_relevance(prompt("How do I do it?")) == 0
    assert contemplative_relevance(prompt("How do I do it?", "ssh")) == 1
    assert contemplative_relevance(prompt("How do I do it alone?", "ssh")) == 1.5
    assert contemplative_relevance(prompt("They always hurt me and I am ANGRY", "cse")) == 2
    # A cue is a word's beginning, not any place in it.
    assert contemplative_relevance(prompt("A grandchild keeps it overall")) == 0


def test_the_filter_keeps_the_order_and_follows_its_threshold() -> None:
    prompts = [prompt("alone", "ssh"), prompt("x"), prompt("x", "hte")]
    assert filter_contemplative_relevance(prompts) == prompts[:1]
    assert filter_contemplative_relevance(prompts, 1) == [prompts[0], prompts[2]]
    assert filter_contemplative_relevance(prompts, 0) == prompts


# --- fetching -------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data" / ailuminate.DEMO_FILE


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception) -> list[Any]:
    asked: list[Any] = []

    def urlopen(url: str, timeout: float) -> Any:
        asked.append((url, timeout))
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_it_is_fetched_once_and_checked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer_with(monkeypatch, b"the file")
    monkeypatch.setattr(ailuminate, "DEMO_SHA256", hashlib.sha256(b"the file").hexdigest())
    assert fetch_ailuminate_demo() == cache
    assert fetch_ailuminate_demo() == cache
    assert cache.read_bytes() == b"the file"
    assert len(asked) == 1
    assert asked[0][1] <= 10
    assert [p.name for p in cache.parent.iterdir()] == [cache.name]


def test_a_damaged_copy_is_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, b"the file")
    monkeypatch.setattr(ailuminate, "DEMO_SHA256", hashlib.sha256(b"the file").hexdigest())
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"half")
    assert fetch_ailuminate_demo().read_bytes() == b"the file"


@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("no route"), TimeoutError("timed out"), ConnectionResetError(),
     urllib.error.HTTPError("u", 404, "Not Found", None, None), IncompleteRead(b"")],  # type: ignore[arg-type]
)  # fmt: skip
def test_without_network_it_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    answer_with(monkeypatch, error)
    with pytest.raises(DataError, match=r"cannot be fetched .*connected machine .*--prompts FILE"):
        fetch_ailuminate_demo()
    assert not cache.exists()


def test_another_file_at_its_address_is_not_taken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, b"<html>Sign in</html>")
    with pytest.raises(DataError, match=r"is not the known file \(sha256\)"):
        fetch_ailuminate_demo()
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, b"the file")
    monkeypatch.setattr(ailuminate, "DEMO_SHA256", hashlib.sha256(b"the file").hexdigest())
    cache.parents[1].mkdir()
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        fetch_ailuminate_demo()
