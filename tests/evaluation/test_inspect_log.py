"""Logs in Inspect's format: their structure, what is in them, and Inspect itself where it is.

Inspect needs an environment of its own; CCAI_INSPECT_PYTHON names that environment's Python.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from ccai_core.evaluation.inspect_log import CONTENT_WARNING
from ccai_core.evaluation.results import EvaluationResult
from ccai_core.evaluation.run import LOGS_FOLDER, evaluate
from tests.evaluation.test_suites import HAZARD_PROMPTS, SMALL, Voices, request

PARTS = {
    "safety", "contemplative", "capability", "criteria", "robustness", "over_refusal",
    "cooperation", "benchmark",
}  # fmt: skip


class Logged:
    """An evaluation and its logs."""

    def __init__(self, result: EvaluationResult, folder: Path) -> None:
        self.result, self.folder = result, folder
        self.files = sorted(folder.iterdir())
        texts = [path.read_text(encoding="utf-8") for path in self.files]
        self.text = "".join(texts)
        self.logs: list[dict[str, Any]] = [json.loads(text) for text in texts]

    def of(self, part: str, which: str) -> dict[str, Any]:
        (found,) = (
            log
            for log in self.logs
            if log["eval"]["task"].endswith(f"/{part}") and which in log["eval"]["tags"]
        )
        return found


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    folder = tmp_path_factory.mktemp("logged")
    # What a run that was killed while it wrote them leaves.
    (folder / LOGS_FOLDER).mkdir()
    (folder / LOGS_FOLDER / "2026-01-01T00-00-00_old_x.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAI_DATA", str(folder / "none"))
        asked = request(SMALL.model_copy(update={"scenario_prompts": 12}))
        result = evaluate(asked, folder, folder / "journal.jsonl", Voices())
    return Logged(result, folder / LOGS_FOLDER)


def test_each_part_and_model_has_one_log_that_is_whole(logged: Logged) -> None:
    assert len(logged.logs) == 2 * len(PARTS)
    for log, path in zip(logged.logs, logged.files, strict=True):
        spec, (score,) = log["eval"], log["results"]["scores"]
        # Inspect lists only files whose names begin so.
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d.*_.*_[0-9a-f]+\.json$", path.name)
        assert (log["version"], log["status"]) == (2, "success")
        ids = [sample["id"] for sample in log["samples"]]
        assert spec["dataset"]["sample_ids"] == ids
        assert len(set(ids)) == len(ids) == log["results"]["total_samples"] > 0
        assert score["scored_samples"] + score["unscored_samples"] == len(ids)
        assert spec["metadata"]["content_warning"] == CONTENT_WARNING
        for sample in log["samples"]:
            assert [m["role"] for m in sample["messages"]][-2:] == ["user", "assistant"]
            assert sample["input"] == sample["messages"][:-1]
            assert sample["output"]["completion"] == sample["messages"][-1]["content"] != ""
    assert len({log["eval"]["eval_id"] for log in logged.logs}) == len(logged.logs)


def test_scores_are_those_of_the_evaluation(logged: Logged) -> None:
    of_id = {metric.id: metric for metric in logged.result.metrics}
    for part, name in (
        ("safety", "safety.p_safe"),
        ("contemplative", "contemplative.overall"),
        ("criteria", "contemplative.criteria"),
        ("capability", "capability.overall"),
    ):
        for which in ("baseline", "trained"):
            (score,) = logged.of(part, which)["results"]["scores"]
            wanted = getattr(of_id[name], which).estimate
            assert score["metrics"]["mean"]["value"] == pytest.approx(wanted), (part, which)
    moves = logged.of("cooperation", "trained")
    assert moves["results"]["scores"][0]["metrics"] == {}
    assert {s["output"]["completion"] for s in moves["samples"]} == {"No. COOPERATE, kindly."}


def test_what_was_asked_is_there_and_members_only_prompts_are_not(logged: Logged) -> None:
    attack = next(
        s for s in logged.of("robustness", "trained")["samples"] if "/none/" not in s["id"]
    )
    assert attack["messages"][0]["role"] in ("system", "user")
    assert all(prompt.text not in logged.text for prompt in HAZARD_PROMPTS)
    withheld = logged.of("benchmark", "trained")["samples"][0]
    assert "Members-only prompt" in withheld["input"][0]["content"]
    assert "Withheld" in withheld["output"]["completion"]
    assert withheld["scores"]["benchmark"]["value"] > 0.5


_READ = """
import sys, json
from inspect_ai.log import list_eval_logs, read_eval_log
found = {}
for info in list_eval_logs(sys.argv[1]):
    log = read_eval_log(info)
    found[log.eval.task + log.eval.task_args["model"]] = [log.status, len(log.samples)]
print(json.dumps(found))
"""


def _inspect() -> str:
    python = os.environ.get("CCAI_INSPECT_PYTHON", sys.executable)
    tried = subprocess.run([python, "-c", "import inspect_ai"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("inspect_ai is not installed; CCAI_INSPECT_PYTHON names a Python that has it")
    return python


@pytest.mark.slow
def test_inspect_reads_and_shows_them(logged: Logged) -> None:
    python = _inspect()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    read = subprocess.run(
        [python, "-c", _READ, str(logged.folder)],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    found = json.loads(read.stdout.splitlines()[-1])
    assert len(found) == len(logged.logs)
    for log in logged.logs:
        key = log["eval"]["task"] + log["eval"]["task_args"]["model"]
        assert found[key] == ["success", len(log["samples"])]

    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    view = subprocess.Popen(
        [Path(python).with_name("inspect"), "view", "--log-dir", logged.folder,
         "--host", "127.0.0.1", "--port", str(port)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        page = _fetched(f"http://127.0.0.1:{port}/", view)
        assert "<html" in page
        listed = _fetched(f"http://127.0.0.1:{port}/api/logs", view)
        assert all(path.name in listed for path in logged.files)
    finally:
        view.terminate()
        view.wait(20)


def _fetched(url: str, server: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + 90
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")
