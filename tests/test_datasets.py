"""Data sets as folders: what is written, what comes back, and what a user sees of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
import yaml

from ccai_core import dataset_files, dataset_parquet, datasets
from ccai_core.dataset_card import cell, hub_licence
from ccai_core.dataset_diff import compare_datasets
from ccai_core.dataset_export import export
from ccai_core.dataset_files import (
    SourceLicence,
    read_prompt_dataset,
    write_pair_dataset,
    write_prompt_dataset,
)
from ccai_core.dataset_info import read_info
from ccai_core.dataset_plots import counts_svg, draw_plots
from ccai_core.dataset_words import printable
from ccai_core.errors import ArtifactError, DataError
from ccai_core.pair_collector import Funnel, Rejected
from ccai_core.prompts.splits import split_of
from ccai_core.training_data import file_hash, read_pairs
from ccai_core.types import PreferencePair, Prompt, Split, assistant, user

PRINCIPLES = ("emptiness", "mindfulness")
OURS = SourceLicence(name="scenarios", licence="Apache-2.0", attribution="This platform")
HARMFUL = SourceLicence(name="demo", licence="CC-BY-4.0", attribution="MLCommons", harmful=True)
CLOSED = SourceLicence(name="closed", licence="LicenseRef-members", restricted=True)


def questions(count: int, *splits: Split) -> list[str]:
    """Questions of the given sides, in turn."""
    wanted, found, number = list(splits) * count, [], 0
    while len(found) < count:
        number += 1
        text = f"Question {number}, what now?"
        if split_of(text) == wanted[len(found)]:
            found.append(text)
    return found


TRAINED = questions(6, "train", "train", "validation")


def pair(number: int, **changes: Any) -> PreferencePair:
    values = {
        "prompt": (user(TRAINED[number // 2]),),
        "chosen": (assistant(f"With care, number {number}."),),
        "rejected": (assistant(f"No, number {number}."),),
        "principle": PRINCIPLES[number % 2],
        "prompt_id": f"q{number // 2}",
        "source": "scenarios",
        "hazard": None,
        "critique": "It is curt.",
        "provenance": {"model": "m@1", "sample": "0"},
        **changes,
    }
    return PreferencePair(**values)


PAIRS = tuple(pair(number) for number in range(12))
FUNNEL = Funnel(
    episodes=9, candidates=18, rejected={"too_short": 4, "meta_text": 2}, accepted=12, surplus=0,
    pairs=12, per_principle=dict.fromkeys(PRINCIPLES, 6), calls=45, tokens=999, shortfall=0,
)  # fmt: skip
LOST = Rejected(
    prompt_id="q1", principle="emptiness", reason="too_short", rejected="a", critique="b", chosen=""
)
MADE = {"model": "m@1", "max_pairs": 12, "config": {"seed": 0}}


def write(folder: Path, pairs: tuple[PreferencePair, ...] = PAIRS, **changes: Any) -> Path:
    known = {"sources": [OURS, HARMFUL, CLOSED], "made": MADE, **changes}
    write_pair_dataset(folder, pairs, [LOST], FUNNEL, **known)
    return folder


def prompt(number: int, side: Split = "train", **changes: Any) -> Prompt:
    (text,) = questions(number + 1, side)[number:]
    values = {"id": f"p{number}", "text": text, "source": "scenarios", "split": side, **changes}
    return Prompt(**values)


PROMPTS = (
    prompt(0, "test", category="philosophical", criteria=("Is it kind?",), locale="en_US"),
    prompt(1, "train", source="demo", hazard="vcr", persona="skilled", tags=("a", "b")),
    prompt(2, "validation", context=(user("Hello"), assistant("Yes?")), difficulty="hard"),
    prompt(3, "train", source="closed", restricted=True, criteria=("Declines.",)),
)


def write_prompts(folder: Path, **changes: Any) -> Path:
    report = {"read": 9, "dropped": {"duplicate": 5}, "names": ["x"]}
    known = {"sources": [OURS, HARMFUL, CLOSED], "report": report, **changes}
    write_prompt_dataset(folder, PROMPTS, **known)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sets") / "pairs-3f2a")


@pytest.fixture(autouse=True)
def no_plots(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second a time; the plots of `made` are looked at, and it was made before."""
    monkeypatch.setattr(dataset_files, "draw_plots", lambda *_: ["plots/counts.svg"])


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "pairs-3f2a"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# --- pairs: written and read ----------------------------------------------------------------------


def test_pairs_come_back_as_they_were_in_their_order(made: Path) -> None:
    assert tuple(read_pairs(made)) == PAIRS
    assert read_info(made).rows == {"train": 8, "validation": 4}


def test_the_same_pairs_give_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_files, "draw_plots", draw_plots)
    assert bytes_of(write(tmp_path / "elsewhere")) == bytes_of(made)


def test_a_folder_holds_what_the_documentation_says(made: Path) -> None:
    assert set(bytes_of(made)) == {
        "README.md", "data/train.parquet", "data/validation.parquet", "dataset.json",
        "funnel.json", "plots/counts.svg", "plots/funnel.svg", "plots/words.svg", "rejected.jsonl",
    }  # fmt: skip
    assert json.loads((made / "rejected.jsonl").read_text())["reason"] == "too_short"
    assert Funnel.model_validate_json((made / "funnel.json").read_text()) == FUNNEL


def test_an_earlier_data_set_in_the_folder_is_replaced_whole(folder: Path) -> None:
    only_train = tuple(p for p in PAIRS if split_of(p.prompt[0].content) == "train")
    write(folder, only_train)
    assert tuple(read_pairs(folder)) == only_train
    assert not (folder / "data" / "validation.parquet").exists()


def test_a_pair_of_the_test_side_is_refused_by_id(tmp_path: Path) -> None:
    (text,) = questions(1, "test")
    with pytest.raises(DataError, match=r"q7 \(scenarios\) is on the test side") as caught:
        write(tmp_path / "x", (*PAIRS, pair(0, prompt=(user(text),), prompt_id="q7")))
    assert text not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_nothing_is_written_without_a_word_on_the_licence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="licence of nowhere"):
        write(tmp_path / "x", (*PAIRS, pair(0, source="nowhere")))


def test_half_a_character_is_refused_and_nothing_torn_is_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="half a character"):
        write(tmp_path / "x", (*PAIRS, pair(0, critique="\ud800")))
    assert not (tmp_path / "x" / "dataset.json").exists()
    assert list((tmp_path / "x").rglob("*.parquet")) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ArtifactError, match="cannot be written"):
        write(tmp_path / "x")


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write(tmp_path / "x")


def test_pairs_of_several_row_groups_are_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_parquet, "_ROW_GROUP", 3)
    assert tuple(read_pairs(write(tmp_path / "x"))) == PAIRS
    assert len(load(tmp_path / "x", tmp_path)["train"]) == 8


# --- other forms of pairs -------------------------------------------------------------------------


def test_a_parquet_file_or_json_lines_of_a_user_are_read_too(made: Path, tmp_path: Path) -> None:
    assert read_pairs(made / "data" / "train.parquet") == [
        p for p in PAIRS if split_of(p.prompt[0].content) == "train"
    ]
    export(made, "jsonl", tmp_path / "mine.jsonl")
    assert tuple(read_pairs(tmp_path / "mine.jsonl")) == PAIRS


def test_parquet_written_by_another_tool_is_read_too(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [p.model_dump() for p in PAIRS]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "x.parquet"))
    assert tuple(read_pairs(tmp_path / "x.parquet")) == PAIRS


def test_what_is_no_pair_is_told_with_its_place(tmp_path: Path) -> None:
    from datasets import Dataset

    path = tmp_path / "x.parquet"
    rows = [p.model_dump() for p in PAIRS]
    Dataset.from_list([{**row, "prompt": "flat"} for row in rows]).to_parquet(str(path))
    with pytest.raises(DataError, match=r"x\.parquet row 1: prompt: .*tuple"):
        read_pairs(path)
    Dataset.from_list(rows).remove_columns(["principle"]).to_parquet(str(path))
    with pytest.raises(DataError, match="row 1: column 'principle' is missing; expected prompt"):
        read_pairs(path)
    Dataset.from_list([{**row, "colour": "red"} for row in rows]).to_parquet(str(path))
    with pytest.raises(DataError, match="unknown key 'colour'"):
        read_pairs(path)


def test_training_knows_equal_data_sets_by_their_rows(made: Path, folder: Path) -> None:
    (folder / "README.md").write_text("another card")
    assert file_hash(folder) == file_hash(made)
    write(folder, PAIRS[:-1])
    assert file_hash(folder) != file_hash(made)


# --- folders that are broken or somebody else's ---------------------------------------------------


def torn(folder: Path) -> None:
    file = folder / "data" / "train.parquet"
    file.write_bytes(file.read_bytes()[:-100])


def other_rows(folder: Path) -> None:
    shutil.copy(folder / "data" / "train.parquet", folder / "data" / "validation.parquet")


BREAKS = {
    "there is no such folder": shutil.rmtree,
    "has no dataset.json, so it is half made": lambda f: (f / "dataset.json").unlink(),
    "validation.parquet is missing": lambda f: (f / "data" / "validation.parquet").unlink(),
    "is no Parquet file, or damaged": torn,
    "has 8 rows, dataset.json says 4": other_rows,
    "dataset.json: cannot be read": lambda f: (f / "dataset.json").write_text("{"),
    "unknown key 'colour'": lambda f: (f / "dataset.json").write_text(
        json.dumps({**json.loads((f / "dataset.json").read_text()), "colour": 1})
    ),
}


@pytest.mark.parametrize("says", BREAKS)
def test_a_broken_folder_is_told_clearly(folder: Path, says: str, capsys: Any) -> None:
    BREAKS[says](folder)
    assert datasets.main(["show", str(folder), "--rows", "1", "--workspace", "none"]) == 2 or (
        "such folder" in says
    )
    with pytest.raises(DataError, match=re.escape(says)):
        read_info(folder) if "such" in says else read_pairs(folder)


def test_a_folder_of_an_earlier_version_or_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no data set"):
        read_pairs(tmp_path)
    (tmp_path / "pairs.jsonl").touch()
    with pytest.raises(DataError, match=r"of an earlier version; give .*pairs\.jsonl"):
        read_pairs(tmp_path)


def test_prompts_are_no_pairs(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds prompts, not pairs"):
        read_pairs(write_prompts(tmp_path))
    with pytest.raises(DataError, match="holds pairs, not prompts"):
        read_prompt_dataset(made)


# --- prompts --------------------------------------------------------------------------------------


def test_prompts_come_back_without_those_that_are_members_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_prompts(tmp_path)
    assert read_prompt_dataset(tmp_path) == PROMPTS[:3]
    assert "1 of 4 prompts are members-only" in caplog.text
    info = read_info(tmp_path)
    assert (info.withheld, info.restricted) == (1, 0)
    assert info.counts["hazard"] == {"vcr": {"train": 1}}
    assert info.languages == ("en",)


def test_members_only_text_is_nowhere_in_the_folder(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_prompts(tmp_path)
    closed = PROMPTS[3]
    rows = pq.read_table(tmp_path / "data" / "train.parquet").to_pylist()
    (row,) = (row for row in rows if row["id"] == closed.id)
    assert (row["text"], row["criteria"]) == ("", [])
    assert len(row["text_sha256"]) == 64
    for name, content in bytes_of(tmp_path).items():
        assert closed.text.encode() not in content, name
    text = [p.text for p in PROMPTS[:3]]
    kept = [
        r["text"]
        for s in ("train", "validation", "test")
        if (r := pq.read_table(tmp_path / "data" / f"{s}.parquet").to_pylist()[0])
    ]
    assert sorted(kept) == sorted(text), "the others are there as they are"


def test_members_only_text_is_written_when_asked_for(tmp_path: Path) -> None:
    write_prompts(tmp_path, include_restricted=True)
    assert read_prompt_dataset(tmp_path) == PROMPTS
    assert "Do not publish" in " ".join((tmp_path / "README.md").read_text().split())


def test_only_members_only_prompts_are_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_prompt_dataset(tmp_path, PROMPTS[3:], sources=[CLOSED], report={})
    with pytest.raises(DataError, match="--include-restricted"):
        read_prompt_dataset(tmp_path)
    assert not caplog.records, "said once, by the error"


def test_prompts_carry_their_preparation_and_what_was_dropped(tmp_path: Path) -> None:
    write_prompts(tmp_path, dropped=[HARMFUL])
    assert json.loads((tmp_path / "preparation.json").read_text())["dropped"] == {"duplicate": 5}
    assert json.loads((tmp_path / "dropped.jsonl").read_text())["name"] == "demo"
    assert read_info(tmp_path).steps == (("read", 9), ("dropped, duplicate", 5))


# --- the card -------------------------------------------------------------------------------------


def front_of(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(front)
    return loaded


def test_the_card_says_what_is_in_it(made: Path) -> None:
    text = (made / "README.md").read_text()
    front = front_of(text)
    assert front["license"] == "apache-2.0"
    assert front["size_categories"] == ["n<1K"]
    assert [each["split"] for each in front["configs"][0]["data_files"]] == ["train", "validation"]
    for row in ("| train | 8 |", "| emptiness | 4 | 2 |", "| Candidates | 18 |", "Apache-2.0"):
        assert row in text
    for plot in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert ElementTree.parse(made / plot).getroot().tag.endswith("svg")
    assert "With care" not in text
    assert TRAINED[0] not in text


def test_a_harmful_source_brings_a_warning(tmp_path: Path) -> None:
    text = (write(tmp_path / "x", (*PAIRS, pair(0, source="demo"))) / "README.md").read_text()
    assert "Content warning" in text
    front = front_of(text)
    assert "not-for-all-audiences" in front["tags"]
    assert front["license"] == "other", "two licences"
    assert "MLCommons" in text


def test_the_licence_of_the_whole() -> None:
    assert hub_licence([OURS, OURS]) == "apache-2.0"
    assert hub_licence([HARMFUL]) == "cc-by-4.0"
    assert hub_licence([OURS, HARMFUL]) == "other"
    assert hub_licence([SourceLicence(name="x")]) == "other"


def test_nothing_from_data_breaks_out_of_the_card(tmp_path: Path) -> None:
    evil = "a|b\n---\n# Big `x` <script>alert(1)</script> [l](javascript:x) ![i](y)"
    source = SourceLicence(name=evil, licence="MIT", attribution="{{ 7*7 }}|\n| x | y |")
    pairs = tuple(pair(n, source=evil, principle="$x_{") for n in range(4))
    info = read_info(
        write(tmp_path / "x", pairs, sources=[source], title=evil, made={"model": "```\n# no"})
    )
    text = (tmp_path / "x" / "README.md").read_text()
    assert front_of(text)["pretty_name"] == " ".join(evil.split())
    body = text.split("---\n", 2)[2]
    assert "<script" not in text.split("configs:")[1]
    assert "\n# Big" not in body
    assert body.count("```") == 4, "one block to load it, one of settings"
    tables = [line for line in body.splitlines() if line.startswith("| a\\|b")]
    assert len(tables) == 2, "one in the counts, one in the terms"
    assert ElementTree.fromstring(counts_svg(info)).tag.endswith("svg")


def test_a_cell_is_one_line_of_plain_text() -> None:
    assert cell("a|b\nc") == "a\\|b c"
    assert cell("\x1b[31mred\u202e") == "\\[31mred"
    assert cell("<b>&") == "&lt;b&gt;&amp;"
    assert cell("boundless_care _x_") == "boundless_care \\_x\\_"


# --- others read it -------------------------------------------------------------------------------


def load(folder: Path, tmp_path: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_datasets_loads_the_folder_by_its_splits(made: Path, tmp_path: Path) -> None:
    loaded = load(made, tmp_path)
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 8, "validation": 4}
    assert loaded["train"][0]["chosen"] == [
        {"role": "assistant", "content": "With care, number 0."}
    ]
    assert json.loads(loaded["train"][0]["provenance"])["model"] == "m@1"


def test_datasets_loads_a_folder_with_one_split(tmp_path: Path) -> None:
    only = tuple(p for p in PAIRS if split_of(p.prompt[0].content) == "train")
    assert set(load(write(tmp_path / "x", only), tmp_path)) == {"train"}


def test_datasets_loads_prompts(tmp_path: Path) -> None:
    loaded = load(write_prompts(tmp_path / "x"), tmp_path)
    assert {name: len(rows) for name, rows in loaded.items()} == {
        "train": 2, "validation": 1, "test": 1,
    }  # fmt: skip
    assert loaded["validation"][0]["context"][1] == {"role": "assistant", "content": "Yes?"}


@pytest.mark.slow
def test_trl_trains_on_the_folder_as_it_is(made: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from tests.tiny_model import save_tiny_model

    tiny = str(save_tiny_model(tmp_path / "tiny"))
    loaded = load(made, tmp_path)
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny),
        args=DPOConfig(
            output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2,
            use_cpu=True, bf16=False, report_to=[], save_strategy="no",
        ),
        train_dataset=loaded["train"],
        eval_dataset=loaded["validation"],
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )  # fmt: skip
    assert trainer.train().training_loss > 0
    assert trainer.evaluate()["eval_loss"] > 0


# --- exports --------------------------------------------------------------------------------------


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_trl_gets_three_columns_a_file_a_split(made: Path, tmp_path: Path) -> None:
    files = export(made, "trl", tmp_path / "trl")
    assert {file.name: rows for file, rows in files.items()} == {
        "train.jsonl": 8, "validation.jsonl": 4,
    }  # fmt: skip
    (row, *_) = lines(tmp_path / "trl" / "train.jsonl")
    assert list(row) == ["prompt", "chosen", "rejected"]


def test_an_exported_folder_is_a_data_set(made: Path, tmp_path: Path) -> None:
    export(made, "parquet", tmp_path / "out")
    assert tuple(read_pairs(tmp_path / "out")) == PAIRS
    assert set(load(tmp_path / "out", tmp_path)) == {"train", "validation"}
    assert not (tmp_path / "out" / "rejected.jsonl").exists()


def test_prompts_are_exported_without_those_that_have_no_text(tmp_path: Path) -> None:
    write_prompts(tmp_path / "x")
    assert list(export(tmp_path / "x", "jsonl", tmp_path / "p.jsonl").values()) == [3]
    assert {row["id"] for row in lines(tmp_path / "p.jsonl")} == {"p0", "p1", "p2"}
    export(tmp_path / "x", "trl", tmp_path / "trl")
    (row,) = lines(tmp_path / "trl" / "validation.jsonl")
    assert [turn["role"] for turn in row["prompt"]] == ["user", "assistant", "user"]


def test_what_is_there_is_not_overwritten(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("mine")
    for to_format in ("jsonl", "trl", "parquet"):
        with pytest.raises(ArtifactError, match=r"is there already|is in use"):
            export(made, to_format, tmp_path / "a.jsonl")  # type: ignore[arg-type]
        with pytest.raises(ArtifactError, match="is in use"):
            export(made, to_format, tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "a.jsonl").read_text() == "mine"


def test_members_only_pairs_leave_only_when_asked_for(tmp_path: Path, capsys: Any) -> None:
    folder = write(tmp_path / "x", (*PAIRS, pair(1, source="closed")))
    for to_format in ("jsonl", "trl", "parquet"):
        with pytest.raises(DataError, match=r"1 rows hold members-only text \(closed\)"):
            export(folder, to_format, tmp_path / to_format)  # type: ignore[arg-type]
        assert not (tmp_path / to_format).exists()
    assert export(folder, "jsonl", tmp_path / "own.jsonl", include_restricted=True)
    argv = ["export", str(folder), "--format", "hub", "--to", "me/x", "--include-restricted"]
    assert datasets.main(argv) == 2
    assert "forbid publishing" in capsys.readouterr().err


def test_the_hub_gets_nothing_of_an_unknown_licence(tmp_path: Path, capsys: Any) -> None:
    folder = write(tmp_path / "x", sources=[SourceLicence(name="scenarios")])
    assert datasets.main(["export", str(folder), "--format", "hub", "--to", "me/x"]) == 2
    assert "no licence is known for scenarios" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_uploaded(made: Path, capsys: Any) -> None:
    argv = ["export", str(made), "--format", "hub", "--to", "me/x", "--dry-run"]
    assert datasets.main(argv) == 0
    out = capsys.readouterr().out
    for word in ("me/x (private)", "data/train.parquet", "README.md", "nothing was uploaded"):
        assert word in out
    assert "rejected.jsonl" not in out


def test_an_upload_to_no_repository_is_refused_before_anything(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["export", str(made), "--format", "hub", "--to", "no name/x/y", "--dry-run"]
    assert datasets.main(argv) == 2
    assert "is no name of a repository" in capsys.readouterr().err


class Hub(BaseHTTPRequestHandler):
    """A stand-in that speaks as much of the hub's protocol as an upload needs."""

    private = True
    uploaded: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        here = f"http://127.0.0.1:{self.server.server_address[1]}/datasets/me/x"
        if self.path.endswith("/preupload/main"):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            self.answer({"files": files})
        elif self.path.endswith("/commit/main"):
            entries = [json.loads(line) for line in body.splitlines()]
            self.uploaded.extend(e["value"]["path"] for e in entries if e["key"] == "file")
            self.answer({"commitUrl": f"{here}/commit/abc", "commitOid": "abc", "success": True})
        else:
            self.answer({"url": here})

    def do_GET(self) -> None:
        self.answer({"id": "me/x", "sha": "abc", "private": self.private, "siblings": []})

    def answer(self, value: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(
        "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setattr(Hub, "uploaded", [])
    yield Hub
    server.shutdown()
    server.server_close()


def test_an_upload_takes_rows_card_and_plots_and_nothing_else(
    made: Path, hub: type[Hub], capsys: Any
) -> None:
    assert datasets.main(["export", str(made), "--format", "hub", "--to", "me/x"]) == 0
    assert set(hub.uploaded) == {
        "README.md", "dataset.json", "data/train.parquet", "data/validation.parquet",
        "plots/counts.svg", "plots/funnel.svg", "plots/words.svg",
    }  # fmt: skip
    assert "/datasets/me/x" in capsys.readouterr().out


def test_what_is_to_be_private_does_not_go_where_all_can_see(
    made: Path, hub: type[Hub], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "private", False)
    argv = ["export", str(made), "--format", "hub", "--to", "me/x"]
    assert datasets.main(argv) == 2
    assert "Say --public" in capsys.readouterr().err
    assert hub.uploaded == []
    assert datasets.main([*argv, "--public"]) == 0
    assert len(hub.uploaded) == 7


def test_without_a_hub_an_upload_is_advice(made: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "none")
    for name, says in (("me/x", "cannot be uploaded"), ("a b/../c", "no name of a repository")):
        assert datasets.main(["export", str(made), "--format", "hub", "--to", name]) == 2
        assert says in capsys.readouterr().err


# --- differences ----------------------------------------------------------------------------------


def test_the_same_rows_are_no_difference(made: Path, folder: Path) -> None:
    difference = compare_datasets(made, folder)
    assert difference.nothing
    assert (difference.same, difference.settings, difference.counts) == (12, (), ())


def test_settings_and_rows_that_differ_are_named(made: Path, tmp_path: Path, capsys: Any) -> None:
    again = (pair(2, critique="Other."), *PAIRS[3:], pair(0, prompt_id="new"), pair(3))
    other = write(tmp_path / "b", again, made={**MADE, "config": {"seed": 1}, "judge": "j"})
    difference = compare_datasets(made, other)
    assert difference.only_first == ("scenarios q0 emptiness", "scenarios q0 mindfulness")
    assert difference.only_second == ("scenarios new emptiness", "scenarios q1 mindfulness #2")
    assert difference.changed == ("scenarios q1 emptiness",)
    assert {c.name: (c.first, c.second) for c in difference.settings} == {
        "config.seed": (0, 1), "judge": (None, "j"),
    }  # fmt: skip
    assert datasets.main(["diff", str(made), str(other)]) == 0
    out = capsys.readouterr().out
    for word in ("2 rows only in the first", "1 changed", "config.seed: 0 → 1", "judge: – → j"):
        assert word in out


def test_another_order_is_told(made: Path, tmp_path: Path) -> None:
    assert compare_datasets(made, write(tmp_path / "b", PAIRS[::-1])).moved


def test_pairs_and_prompts_are_not_compared(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of one kind"):
        compare_datasets(made, write_prompts(tmp_path))


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Path:
    for name in ("pairs-3f2a", "pairs-3f9b", "prompts-77c0"):
        shutil.copytree(made, tmp_path / "artifacts" / name)
    (tmp_path / "artifacts" / "training-1").mkdir()
    return tmp_path


def run(capsys: Any, workspace: Path, *words: str) -> tuple[int, str, str]:
    code = datasets.main([*words, "--workspace", str(workspace)])
    out, err = capsys.readouterr()
    return code, out, err


def test_list_shows_every_data_set_and_what_is_wrong_with_one(workspace: Path, capsys: Any) -> None:
    (workspace / "artifacts" / "pairs-3f9b" / "dataset.json").write_text("{")
    code, out, _ = run(capsys, workspace, "list")
    assert code == 0
    assert re.search(r"pairs-3f2a +pairs +12 +train 8, validation 4 +unfinished", out)
    assert "dataset.json: cannot be read" in out
    assert "training-1" not in out


def test_a_workspace_without_data_sets_says_how_to_make_one(tmp_path: Path, capsys: Any) -> None:
    code, _, err = run(capsys, tmp_path, "list")
    assert (code, "flows.preference_data" in err) == (2, True)


@pytest.mark.parametrize("name", ["pairs-3f2a", "pairs-3f2", "prompts", "77"])
def test_a_name_may_be_cut_as_long_as_it_is_one(workspace: Path, capsys: Any, name: str) -> None:
    code, out, _ = run(capsys, workspace, "show", name)
    assert code == 0
    assert "12 pairs: train 8, validation 4" in out


def test_a_name_that_is_none_or_several_is_told(workspace: Path, capsys: Any) -> None:
    assert "pairs-3f2a or pairs-3f9b" in run(capsys, workspace, "show", "pairs-3f")[2]
    assert "Did you mean 'pairs-3f2a'?" in run(capsys, workspace, "show", "pears-3f2a")[2]
    assert "no data sets in" in run(capsys, workspace / "none", "show", "pairs-3f")[2]


def test_show_prints_counts_terms_and_rows(made: Path, capsys: Any) -> None:
    code, out, _ = run(capsys, made, "show", str(made), "--rows", "2")
    assert code == 0
    for word in ("emptiness", "Apache-2.0", "This platform", "Candidates", "With care, number 1."):
        assert word in out
    assert "With care, number 2." not in out


def test_harmful_rows_come_after_a_warning(tmp_path: Path, capsys: Any) -> None:
    folder = write(tmp_path / "x", tuple(pair(n, source="demo") for n in range(4)))
    _, out, _ = run(capsys, tmp_path, "show", str(folder), "--rows", "1")
    assert 0 < out.rindex("Content warning") < out.index(TRAINED[0])


def test_no_escape_reaches_the_terminal(tmp_path: Path, capsys: Any) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\x00gone"
    source = SourceLicence(name=f"s{evil}", licence=f"MIT{evil}", attribution=evil)
    pairs = tuple(
        pair(n, chosen=(assistant(f"{n}{evil}"),), source=source.name, prompt_id=evil)
        for n in range(3)
    )
    a = write(tmp_path / "a", pairs, sources=[source], title=evil, made={evil: evil})
    b = write(tmp_path / "b", pairs[:2], sources=[source], title=evil, made={evil: "x"})
    said = ""
    for words in (["show", str(a), "--rows", "9"], ["diff", str(a), str(b)], ["list"]):
        said += "".join(run(capsys, tmp_path, *words)[1:])
    assert "gone" in said
    assert [c for c in said if not c.isprintable() and c != "\n"] == []
    assert printable("a\tb\r\nc") == "a b\nc"


def test_a_file_changed_since_is_told(folder: Path, capsys: Any) -> None:
    from infra.artifacts import Artifact

    artifact = Artifact(folder.parent, "pairs", "3f2a")
    artifact.finish(MADE, parents=("prompts-1",))
    assert "DAMAGED" not in run(capsys, folder, "show", str(folder))[1]
    (folder / "rejected.jsonl").write_text("")
    said = run(capsys, folder, "show", str(folder))[1]
    assert re.search(r"DAMAGED: .*rejected\.jsonl", said)


def test_help_teaches_by_example(capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        datasets.main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for command in ("list", "show", "diff", "export"):
        assert f"python -m ccai_core.datasets {command}" in out


# --- records --------------------------------------------------------------------------------------


def test_records_of_equal_rows_are_equal_in_content(made: Path, tmp_path: Path) -> None:
    from infra.artifacts import Artifact

    contents = []
    for place, rows in (("a", PAIRS), ("b/c", PAIRS), ("d", PAIRS[1:])):
        artifact = Artifact(tmp_path / place, "pairs", "1")
        write(artifact.folder, rows, title=place)
        artifact.finish({})
        record = artifact.record()
        assert record is not None
        assert record.versions["pyarrow"][0].isdigit()
        contents.append(record.content)
    assert contents[0] == contents[1] != contents[2]
