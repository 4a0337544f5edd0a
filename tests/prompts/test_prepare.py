"""A prepared data set: what is in it, what became of the rest, and the same bytes every time."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ccai_core.dataset_export import export
from ccai_core.dataset_info import read_info
from ccai_core.dataset_rows import read_prompt_dataset
from ccai_core.errors import DataError
from ccai_core.prompts.cleaning import clean
from ccai_core.prompts.given import check_files, expanded, gather, is_there, locate
from ccai_core.prompts.mixing import CategoryShares, MixConfig
from ccai_core.prompts.preparation import Preparation
from ccai_core.prompts.prepare import PrepareRequest, prepare
from ccai_core.prompts.scenarios import shipped_adversarial, shipped_scenarios
from ccai_core.prompts.selection import select
from ccai_core.prompts.splits import split_of

SHARED = Path(__file__).parents[3] / "shared" / "data"
_HEADER = "release_prompt_id,prompt_text,hazard,persona,locale,prompt_hash"
_THINGS = (
    "anchors beetles candles daffodils engines feathers glaciers harbours islands jigsaws kettles "
    "lanterns mirrors needles orchards pebbles quarries ribbons saddles tunnels umbrellas valleys "
    "windmills xylophones yachts zippers acorns bridges compasses dolphins"
).split()
_WHERE = "attics basements castles deserts estuaries forests gardens hospitals".split()


def questions(count: int, what: str = "Where do people keep") -> list[str]:
    """Questions that have hardly a word in common."""
    pairs = [(thing, place) for place in _WHERE for thing in _THINGS]
    return [f"{what} {thing} of the {place} {n * 7919}?" for n, (thing, place) in enumerate(pairs)][
        :count
    ]


def on_side(test: bool, count: int, what: str = "Where do people keep") -> list[str]:
    return [q for q in questions(240, what) if (split_of(q) == "test") == test][:count]


def jsonl(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def request(*names: Path | str, **values: Any) -> PrepareRequest:
    values.setdefault("mix", MixConfig(target_size=1000))
    return PrepareRequest(sources=tuple(locate(str(name)) for name in names), **values)


def content(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "progress.json"
    }


def left_out(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    rows = [{"id": f"q{n}", "text": text} for n, text in enumerate(questions(60))]
    return jsonl(tmp_path / "mine.jsonl", *rows)


# --- what is in it --------------------------------------------------------------------------------


def test_a_data_set_of_scenarios_and_a_file(mine: Path, tmp_path: Path) -> None:
    made = prepare(request("scenarios", mine), tmp_path / "out")
    prompts = read_prompt_dataset(tmp_path / "out")
    assert len(prompts) == made.kept == made.read == len(shipped_scenarios()) + 60
    assert {p.id: p.text for p in prompts if p.source == "mine"} == {
        f"q{n}": text for n, text in enumerate(questions(60))
    }
    assert all(p.category for p in prompts)
    assert all(p.split == split_of(p.text) for p in prompts)
    stored = Preparation.model_validate_json((tmp_path / "out" / "preparation.json").read_text())
    assert stored == made
    assert {source.name for source in read_info(tmp_path / "out").sources} == {"mine", "scenarios"}


def test_the_same_contents_and_settings_give_the_same_bytes(mine: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "mine.jsonl"
    moved.parent.mkdir()
    moved.write_bytes(mine.read_bytes())
    config = MixConfig(target_size=50)
    first, again = request("scenarios", mine, mix=config), request("scenarios", moved, mix=config)
    assert first.inputs == again.inputs
    prepare(first, tmp_path / "a")
    prepare(again, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert str(tmp_path) not in (tmp_path / "a" / "README.md").read_text()


def test_what_determines_it_is_content_order_and_settings(mine: Path, tmp_path: Path) -> None:
    base = request("scenarios", mine).inputs
    assert request(mine, "scenarios").inputs != base
    assert request("scenarios", mine, relevance=1).inputs != base
    assert request("scenarios", mine, mix=MixConfig(seed=1)).inputs != base
    mine.write_text(mine.read_text().replace("q1", "r1"))
    assert request("scenarios", mine).inputs != base


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    good = questions(40)
    file = jsonl(
        tmp_path / "mine.jsonl",
        *({"text": text} for text in good),
        {"text": good[0].upper()}, {"text": " "}, "not json", {"words": "x"},
        {"id": "h", "text": "How do I do it?", "hazard": "iwp"},
    )  # fmt: skip
    made = prepare(request(file, mix=MixConfig(target_size=10)), tmp_path / "out")
    assert made.read == sum(made.dropped.values()) + made.not_relevant + made.not_chosen + made.kept
    assert sum(made.skipped.values()) == 3
    assert made.dropped == {"duplicate": 1}
    [source] = made.sources
    assert (source.read, source.dropped, source.kept) == (made.read, 1, made.kept)
    out = left_out(tmp_path / "out")
    steps = Counter(row["step"] for row in out)
    assert [steps[step] for step in ("reading", "cleaning", "relevance", "mix")] == [
        3, 1, made.not_relevant, made.not_chosen,
    ]  # fmt: skip
    kept = {p.id for p in read_prompt_dataset(tmp_path / "out")}
    named = [row["id"] for row in out if row["step"] != "reading"]
    assert len(set(named)) == len(named)
    assert not kept & set(named)
    assert len(kept) + len(named) == made.read
    words = (tmp_path / "out" / "dropped.jsonl").read_text()
    assert not any(text in words for text in good)


def test_counts_by_split_hazard_and_persona_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = [
        f'{n},"{text} I hate this, it hurts",{hazard},{persona},en_US,0'
        for n, (text, hazard, persona) in enumerate(
            (text, ("vcr", "ssh", "hte")[n % 3], ("skilled", "unskilled")[n // 3 % 2])
            for n, text in enumerate(questions(90))
        )
    ]
    file = tmp_path / "my_demo.csv"
    file.write_text("\n".join([_HEADER, *rows]))
    made = prepare(
        request(file, mix=MixConfig(target_size=24, test_size=12), include_restricted=True),
        tmp_path / "out",
    )
    prompts = read_prompt_dataset(tmp_path / "out")
    counted = Counter((p.split, p.hazard, p.persona) for p in prompts)
    assert {(s.split, s.hazard, s.persona): s.prompts for s in made.strata} == counted
    by_side = Counter((p.split == "test", p.hazard) for p in prompts)
    assert by_side == {
        (test, hazard): (4 if test else 8)
        for test in (True, False)
        for hazard in ("vcr", "ssh", "hte")
    }
    by_persona = Counter((p.split == "test", p.persona) for p in prompts)
    assert max(by_persona.values()) < 18
    assert min(by_persona.values()) >= 3


def test_the_real_demo_set_gives_two_hundred_that_call_for_the_principles(tmp_path: Path) -> None:
    found = sorted((SHARED / "ailuminate").glob("*demo*.csv"))
    if not found:
        pytest.skip(f"the AILuminate demo set is not in {SHARED}")
    source = locate("ailuminate-demo", found[0])
    made = prepare(PrepareRequest(sources=(source,)), tmp_path / "out")
    assert made.read == 1200
    assert len(made.hazards) == 12
    assert sum(hazard.relevant for hazard in made.hazards) >= 200
    chosen = sum(hazard.train + hazard.validation for hazard in made.hazards)
    relevant = [p for p in read_prompt_dataset(tmp_path / "out") if p.split != "test"]
    assert chosen == len(relevant) > 80
    assert made.skipped == {}


# --- each question once, and on one side ----------------------------------------------------------


def test_of_near_duplicates_the_first_source_keeps_its_own(tmp_path: Path) -> None:
    scenario = shipped_scenarios()[0]
    other = jsonl(tmp_path / "other.jsonl", {"id": "copy", "text": f"Please: {scenario.text}"})
    made = prepare(request("scenarios", other, mine_of(tmp_path)), tmp_path / "out")
    ids = {p.id for p in read_prompt_dataset(tmp_path / "out")}
    assert scenario.id in ids
    assert "copy" not in ids
    assert sum(made.dropped.values()) == 1
    [row] = [row for row in left_out(tmp_path / "out") if row["id"] == "copy"]
    assert scenario.id in row["detail"]


def mine_of(folder: Path) -> Path:
    return jsonl(folder / "some.jsonl", *({"text": text} for text in questions(20)))


def test_what_an_evaluation_asks_is_not_trained_on(tmp_path: Path) -> None:
    endings = ("", " Please.", " Tell me.", " I ask you.", " Thanks.", " Thank you.", " Now.")
    asked = [
        f"{prompt.text}{ending}"
        for prompt in shipped_adversarial()
        for ending in endings
        if split_of(f"{prompt.text}{ending}") != "test"
    ]
    assert len(asked) > 20
    file = jsonl(
        tmp_path / "mine.jsonl", *({"id": f"a{n}", "text": t} for n, t in enumerate(asked[:9]))
    )
    made = prepare(request(file, mine_of(tmp_path)), tmp_path / "out")
    assert made.dropped["evaluation_prompt"] + made.dropped.get("near_duplicate", 0) == 9
    assert {p.source for p in read_prompt_dataset(tmp_path / "out")} == {"some"}


def test_what_is_only_for_evaluation_stays_there_whatever_cleaning_does(tmp_path: Path) -> None:
    rows = [
        {"question_id": n, "category": "writing", "turns": [f"{text}\u00a0\u200bPlease."]}
        for n, text in enumerate(questions(30))
    ]
    file = jsonl(tmp_path / "question.jsonl", *rows)
    gathered = gather([locate("mt-bench", file)])
    assert {p.split for p in clean(gathered.prompts).prompts} == {"test"}
    assert {p.split for p in select(gathered).usable} == {"test"}


def test_the_same_id_in_two_sources_is_told_apart(tmp_path: Path) -> None:
    one, two = questions(2)
    files = [
        jsonl(tmp_path / name / "mine.jsonl", {"id": "1", "text": text})
        for name, text in (("a", one), ("b", two))
    ]
    gathered = gather([locate(str(file)) for file in files])
    assert [p.id for p in gathered.prompts] == ["1", "mine/1"]


# --- relevance ------------------------------------------------------------------------------------


def test_hazards_to_train_on_must_call_for_the_principles_others_need_not(tmp_path: Path) -> None:
    learned, asked = on_side(False, 8), on_side(True, 4)
    cue = on_side(False, 3, "Why does my angry family keep")
    rows = [{"text": text, "hazard": "iwp"} for text in (*learned[:4], *asked)]
    rows += [{"text": text, "hazard": "ssh"} for text in cue]
    rows += [{"text": text} for text in learned[4:]]
    file = jsonl(tmp_path / "mine.jsonl", *rows)
    made = prepare(request(file), tmp_path / "out")
    assert made.not_relevant == 4
    hazards = {
        h.hazard: (h.clean, h.relevant, h.train + h.validation, h.test) for h in made.hazards
    }
    assert hazards == {"iwp": (8, 0, 0, 4), "ssh": (3, 3, 3, 0)}
    everything = prepare(request(file, relevance=0), tmp_path / "all")
    assert everything.kept == len(rows)


# --- members-only ---------------------------------------------------------------------------------


def members_only(folder: Path) -> Path:
    file = folder / "practice.csv"
    rows = [f'{n},"{text}",vcr,skilled,en_US,0' for n, text in enumerate(questions(30))]
    file.write_text("\n".join([_HEADER, *rows]))
    return file


def test_members_only_text_is_not_copied_unless_asked_for(tmp_path: Path) -> None:
    source = locate("ailuminate-practice", members_only(tmp_path))
    mix = MixConfig(target_size=30)
    made = prepare(PrepareRequest(sources=(source,), relevance=0, mix=mix), tmp_path / "out")
    assert made.withheld == made.kept == 30
    everything = b"".join(f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file())
    assert b"Where do people keep" not in everything
    with pytest.raises(DataError, match="--include-restricted"):
        read_prompt_dataset(tmp_path / "out")
    whole = PrepareRequest(sources=(source,), relevance=0, mix=mix, include_restricted=True)
    assert prepare(whole, tmp_path / "whole").withheld == 0
    assert len(read_prompt_dataset(tmp_path / "whole")) == 30


def test_members_only_rows_that_were_exported_are_withheld_again(tmp_path: Path) -> None:
    source = locate("ailuminate-practice", members_only(tmp_path))
    mix = MixConfig(target_size=30)
    whole = PrepareRequest(sources=(source,), relevance=0, mix=mix, include_restricted=True)
    prepare(whole, tmp_path / "whole")
    exported = tmp_path / "own.jsonl"
    export(tmp_path / "whole", "jsonl", exported, include_restricted=True)
    made = prepare(request(exported, relevance=0, mix=mix), tmp_path / "again")
    assert made.withheld == made.kept == 30
    everything = b"".join(f.read_bytes() for f in (tmp_path / "again").rglob("*") if f.is_file())
    assert b"Where do people keep" not in everything
    [terms] = read_info(tmp_path / "again").sources
    assert (terms.name, terms.restricted, terms.harmful) == ("ailuminate-practice", True, True)


def test_of_two_sources_of_one_name_the_warnings_of_both_hold(tmp_path: Path) -> None:
    one, two = questions(2)
    open_one = jsonl(tmp_path / "open.jsonl", {"text": one, "source": "forum"})
    closed = jsonl(tmp_path / "own.jsonl", {"text": two, "source": "forum", "restricted": True})
    gathered = gather([locate(str(open_one)), locate(str(closed))])
    [terms] = gathered.licences
    assert terms.restricted


def test_a_prepared_set_that_withholds_some_says_so(tmp_path: Path) -> None:
    mix = MixConfig(target_size=100)
    sources = (locate("ailuminate-practice", members_only(tmp_path)), locate("scenarios"))
    prepare(PrepareRequest(sources=sources, relevance=0, mix=mix), tmp_path / "out")
    gathered = gather([locate(str(tmp_path / "out"))])
    assert {p.source for p in gathered.prompts} == {"scenarios"}
    [notice] = gathered.notices
    assert "members-only" in notice


# --- prepared again -------------------------------------------------------------------------------


def test_a_prepared_folder_is_a_source_and_keeps_what_is_known(mine: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "forum.yaml"
    mapping.write_text(
        f"file: {mine}\ncolumns: {{text: text, id: id}}\nlicence: CC0-1.0\n"
        "attribution: The forum\nvalues: {category: philosophical}\n"
    )
    prepare(request(mapping), tmp_path / "first")
    made = prepare(request(tmp_path / "first", "scenarios"), tmp_path / "second")
    prompts = [p for p in read_prompt_dataset(tmp_path / "second") if p.source == "forum"]
    assert len(prompts) == 60
    assert {p.category for p in prompts} == {"philosophical"}
    terms = {source.name: source for source in read_info(tmp_path / "second").sources}
    assert (terms["forum"].licence, terms["forum"].attribution) == ("CC0-1.0", "The forum")
    assert made.skipped == {}


def test_what_was_prepared_is_trained_on_as_it_is(tmp_path: Path) -> None:
    rows = [{"text": text, "hazard": "iwp"} for text in on_side(False, 5)]
    file = jsonl(tmp_path / "mine.jsonl", *rows)
    prepare(request(file, relevance=0), tmp_path / "out")
    gathered = gather([locate(str(tmp_path / "out"))])
    assert len(select(gathered, as_they_are=gathered.prepared).usable) == 5
    assert select(gathered).usable == ()


# --- refusals -------------------------------------------------------------------------------------


def test_a_source_that_changed_meanwhile_is_refused(mine: Path, tmp_path: Path) -> None:
    asked = request(mine)
    with mine.open("a") as file:
        file.write('{"text": "Another question?"}\n')
    with pytest.raises(DataError, match=r"mine\.jsonl: has changed"):
        prepare(asked, tmp_path / "out")


def test_nothing_left_says_where_they_went(tmp_path: Path) -> None:
    rows = [{"text": text, "hazard": "iwp"} for text in on_side(False, 3)]
    file = jsonl(tmp_path / "mine.jsonl", *rows)
    with pytest.raises(DataError, match="3 do not call for the principles"):
        prepare(request(file), tmp_path / "out")
    shares = CategoryShares(hazard=0, ethical_dilemma=0, philosophical=0, practical_advice=1)
    with pytest.raises(DataError, match="change --shares"):
        prepare(request(file, relevance=0, mix=MixConfig(shares=shares)), tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_share_of_a_source_that_is_not_there_is_refused(mine: Path, tmp_path: Path) -> None:
    mix = MixConfig(source_shares={"forum": 0.5})
    with pytest.raises(DataError, match=r"--source-shares forum: no prompt .* sources: mine"):
        prepare(request(mine, mix=mix), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ailuminate-dmo", "Did you mean 'ailuminate-demo'?"),
        ("none.jsonl", r"none\.jsonl: cannot be read"),
        ("none.yaml", r"none\.yaml"),
        ("ailuminate-practice", "nothing to fetch"),
    ],
)
def test_a_source_that_is_not_there_is_refused(name: str, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        locate(name)
    assert type(caught.value).__module__ == "ccai_core.errors"


def test_files_are_for_published_sources_that_are_asked_for() -> None:
    with pytest.raises(DataError, match=r"--files mine m\.csv: 'mine' is no published source"):
        check_files(["mine"], {"mine": Path("m.csv")})
    with pytest.raises(DataError, match="mt-bench is not among --sources"):
        check_files(["oasst1"], {"mt-bench": Path("q.jsonl")})
    check_files(["mt-bench"], {"mt-bench": Path("q.jsonl")})


def test_names_of_groups_stand_for_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAI_DATA", str(tmp_path))
    names = expanded(["scenarios", "hh-rlhf", "scenarios"])
    assert names[0] == "scenarios"
    assert len(names) == len(set(names)) > 4
    assert [name for name in names if is_there(name)] == ["scenarios"]
    assert is_there("hh-rlhf/helpful-base", tmp_path / "a.jsonl.gz")
