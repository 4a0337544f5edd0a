"""flows.prepare_data: said before it starts, made once, and what the other flows do with it."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ccai_core.dataset_rows import read_prompt_dataset
from ccai_core.errors import ArtifactError, ConfigError, DataError
from ccai_core.prompts.scenarios import shipped_scenarios
from ccai_core.prompts.splits import split_of
from flows.config import PreferenceDataConfig, PrepareDataConfig, SourceConfig
from flows.inputs import read_sources
from flows.plan import plan_preferences
from flows.preparation import DEFAULT_SOURCES, plan_prepare, table
from flows.results import Summary
from infra.workspace import Workspace
from tests.flows.tiny_flow import attempts

_HEADER = "release_prompt_id,prompt_text,hazard,persona,locale,prompt_hash"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with nothing in it, and no network."""
    data = tmp_path / "data"
    monkeypatch.setenv("CCAI_DATA", str(data))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return data


def numbered(count: int) -> list[str]:
    things = "anchors beetles candles engines feathers glaciers islands kettles lanterns".split()
    places = "attics basements castles deserts forests gardens hospitals".split()
    pairs = [(thing, place) for place in places for thing in things]
    return [f"Where are {t} of {p} {n * 7919} kept?" for n, (t, p) in enumerate(pairs)][:count]


def own_file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "mine.jsonl"
    given = rows or tuple({"id": f"q{n}", "text": text} for n, text in enumerate(numbered(40)))
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def settings(folder: Path, **values: Any) -> PrepareDataConfig:
    return PrepareDataConfig.model_validate({"workspace": folder / "ws", **values})


def run(config: PrepareDataConfig) -> Summary:
    from flows.prepare_data import prepare_data

    return prepare_data(config)


# --- what is said before --------------------------------------------------------------------------


def test_without_any_setting_it_takes_what_is_there_and_says_what_is_not(tmp_path: Path) -> None:
    plan = plan_prepare(settings(tmp_path))
    lines = plan.splitlines()
    [sources] = [line for line in lines if line.startswith("sources")]
    assert "scenarios" in sources
    assert f"{len(shipped_scenarios())} prompts" in sources
    for name in DEFAULT_SOURCES[1:]:
        assert f"python -m ccai_core.prompts fetch {name}" in plan
    assert "40% hazard, 25% ethical_dilemma, 20% philosophical, 15% practical_advice" in plan
    assert re.search(r"data set    .*ws/artifacts/prompts-[0-9a-f]{16}$", plan)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_names_licence_and_what_is_yet_to_be_fetched(tmp_path: Path) -> None:
    mine = own_file(tmp_path)
    plan = plan_prepare(
        settings(tmp_path, sources=["ailuminate-demo", str(mine)], mix={"target_size": 30})
    )
    [fetch] = [line for line in plan.splitlines() if line.startswith("to fetch")]
    assert "ailuminate-demo" in fetch
    assert "1,200 prompts, CC-BY-4.0, harmful" in fetch
    assert f"{mine}" in plan
    assert "30 to train on, 30 to evaluate on" in plan


def test_a_source_that_was_asked_for_and_cannot_be_fetched_says_what_to_do(
    tmp_path: Path, server: str
) -> None:
    with pytest.raises(DataError, match=r"cannot be fetched \(no route.*fetch ailuminate-demo"):
        run(settings(tmp_path, sources=["ailuminate-demo"]))
    assert not (tmp_path / "ws" / "artifacts").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sources": ["ailuminate-dmo"]}, "Did you mean 'ailuminate-demo'?"),
        ({"sources": ["none.csv"]}, r"none\.csv: cannot be read"),
        ({"sources": ["ailuminate-practice"]}, "members only.*--files ailuminate-practice FILE"),
        ({"files": {"mine": "x.csv"}}, "'mine' is no published source"),
        ({"sources": ["scenarios"], "files": {"oasst1": "x"}}, "is not among --sources"),
        ({"files": {"mt-bench": "none.jsonl"}}, r"none\.jsonl: cannot be read"),
        ({"cluster": "nowhere"}, "Unknown cluster 'nowhere'"),
    ],
)
def test_what_cannot_be_used_is_refused_before_it_starts(
    tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    with pytest.raises((DataError, ConfigError), match=words):
        plan_prepare(settings(tmp_path, **values))


# --- what is made ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def made(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    folder = tmp_path_factory.mktemp("prepared")
    config = settings(folder, sources=["scenarios", str(own_file(folder))], mix={"target_size": 60})
    return folder, run(config)


def test_a_run_makes_a_data_set_and_says_what_is_in_it(made: tuple[Path, Summary]) -> None:
    folder, summary = made
    data = Path(summary.made["prompts"])
    prompts = read_prompt_dataset(data)
    learned = [p for p in prompts if p.split != "test"]
    assert (len(learned), len(prompts)) == (60, 120)
    record = json.loads((data / "record.json").read_text())
    assert record["facts"]["kept"] == 120
    assert str(folder) not in json.dumps(record["inputs"])
    said = summary.text()
    assert f"120 of {len(shipped_scenarios()) + 40} prompts: " in said
    assert re.search(r"scenarios +\d+ +0 +0 +\d+ +\d+", said)
    assert "Not met, train side: hazard has 0 of 24." in said
    assert f"--prompts {data} --no-scenarios" in summary.next_commands[0]


def test_the_same_again_is_found_not_made_wherever_its_files_are(
    made: tuple[Path, Summary], server: str, tmp_path: Path
) -> None:
    folder, before = made
    moved = tmp_path / "mine.jsonl"
    moved.write_bytes((folder / "mine.jsonl").read_bytes())
    config = settings(folder, sources=["scenarios", str(moved)], mix={"target_size": 60})
    record = Path(before.made["prompts"]) / "record.json"
    assert "is there already" in plan_prepare(config)
    written = record.stat().st_mtime_ns
    assert run(config).made == before.made
    assert record.stat().st_mtime_ns == written
    assert attempts(folder / "ws") == {"prompts": 1}


def test_a_half_made_data_set_is_made_whole(server: str, tmp_path: Path) -> None:
    config = settings(tmp_path, sources=[str(own_file(tmp_path))], mix={"target_size": 10})
    folder = Path(plan_prepare(config).splitlines()[-1].split()[-1])
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train.parquet").write_bytes(b"PAR1 and then the power went")
    (folder / "progress.json").write_text("{")
    summary = run(config)
    assert summary.made["prompts"] == str(folder)
    assert len(read_prompt_dataset(folder)) == 20
    assert (folder / "record.json").is_file()


def test_a_second_process_is_refused(server: str, tmp_path: Path) -> None:
    config = settings(tmp_path, sources=[str(own_file(tmp_path))])
    with (
        Workspace(config.workspace).lock(),
        pytest.raises(ArtifactError, match="is in use"),
    ):
        run(config)


def test_a_share_that_names_nothing_is_said_by_the_job(server: str, tmp_path: Path) -> None:
    mix = {"source_shares": {"forum": 0.5}}
    config = settings(tmp_path, sources=[str(own_file(tmp_path))], mix=mix)
    with pytest.raises(DataError, match="--source-shares forum"):
        run(config)


# --- what the other flows do with it --------------------------------------------------------------


def test_a_prepared_folder_is_taken_as_it_is(made: tuple[Path, Summary]) -> None:
    data = Path(made[1].made["prompts"])
    sources = read_sources(SourceConfig(prompts=(str(data),), scenarios=False))
    prompts = read_prompt_dataset(data)
    assert {p.id for p in sources.train} == {p.id for p in prompts if p.split != "test"}
    assert {p.id for p in sources.scenarios} == {p.id for p in prompts if p.split == "test"}
    assert {terms.name for terms in sources.licences} == {"scenarios", "mine"}
    assert sources.parents == (data.name,)
    assert sources.left_out == ()
    both = read_sources(SourceConfig(prompts=(str(data),)))
    assert len(both.train) > len(sources.train)
    assert len({p.text for p in both.train}) == len(both.train)


def test_prompts_of_ones_own_are_cleaned_and_counted(tmp_path: Path) -> None:
    scenario = next(p for p in shipped_scenarios() if p.split != "test")
    texts = [text for text in numbered(40) if split_of(text) != "test"][:6]
    rows = [{"text": text} for text in texts]
    rows += [{"text": f"{texts[0]} Please."}, {"text": f"Tell me. {scenario.text}"}]
    for_harm = next(t for t in numbered(60)[40:] if split_of(t) != "test")
    rows += [{"text": for_harm, "hazard": "iwp"}]
    sources = read_sources(SourceConfig(prompts=(str(own_file(tmp_path, *rows)),)))
    own = {p.text for p in sources.train if p.source == "mine"}
    assert own == set(texts)
    assert scenario.text in {p.text for p in sources.train}
    assert sources.left_out == (
        "2 by cleaning: near duplicate",
        "1 by relevance: does not call for the principles",
    )


def test_a_bad_row_of_a_small_file_is_still_refused(tmp_path: Path) -> None:
    mine = own_file(tmp_path, {"text": "Why?"}, {"text": " "})
    with pytest.raises(DataError, match=r"mine\.jsonl line 2: the prompt is empty"):
        read_sources(SourceConfig(prompts=(str(mine),)))


def test_a_plan_refuses_members_only_prompts_as_the_run_would(tmp_path: Path) -> None:
    rows = [{"text": text, "restricted": True} for text in numbered(40)]
    given = {"workspace": tmp_path / "ws", "prompts": (str(own_file(tmp_path, *rows)),)}
    with pytest.raises(DataError, match=r"members-only.*--include-restricted"):
        plan_preferences(PreferenceDataConfig.model_validate(given))
    asked_for = {**given, "preferences": {"include_restricted": True}}
    assert "of the train side" in plan_preferences(PreferenceDataConfig.model_validate(asked_for))


def test_a_mapping_and_a_source_by_name_are_prompts_too(tmp_path: Path, offline: Path) -> None:
    (tmp_path / "posts.csv").write_text(f"body,n\n{numbered(1)[0]},1\n")
    mapping = tmp_path / "forum.yaml"
    mapping.write_text("file: posts.csv\ncolumns: {text: body}\nlicence: CC0-1.0\n")
    sources = read_sources(SourceConfig(prompts=(str(mapping),)))
    everything = (*sources.train, *sources.scenarios)
    assert [p.source for p in everything if p.source != "scenarios"] == ["forum"]
    assert {t.name: t.licence for t in sources.licences}["forum"] == "CC0-1.0"
    with pytest.raises(DataError, match="cannot be fetched"):
        read_sources(SourceConfig(prompts=("mt-bench",)))


def test_pairs_are_told_licences_and_where_their_prompts_are_from(
    made: tuple[Path, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import stages

    data = made[1].made["prompts"]
    config = PreferenceDataConfig(prompts=(data,), scenarios=False)
    asked: list[Any] = []
    monkeypatch.setattr(stages, "generate_preferences", lambda site, request: asked.append(request))
    stages.make_preferences(None, config, read_sources(config), _model())  # type: ignore[arg-type]
    [request] = asked
    assert request.parents == (Path(data).name,)
    assert {terms.name for terms in request.sources} == {"scenarios", "mine"}


def _model() -> Any:
    from ccai_core.models import ModelRef

    return ModelRef(name="m", path=Path("m"), revision="r", requested="m")


def test_a_table_is_as_wide_as_its_numbers() -> None:
    assert table(("what", "n"), [("a", 1234), ("longer", 5)]) == [
        "what        n",
        "a       1,234",
        "longer      5",
    ]
