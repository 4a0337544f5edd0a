"""Secrets are planted in the environment, and must be nowhere else afterwards."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url

from ccai_core.errors import CCAIError, ConfigError
from flows.config import PoCConfig
from flows.human_evaluation_config import CollectReviewConfig
from flows.promote_config import PromoteConfig
from infra.cluster import ClusterConfig
from infra.jobs import Resources, submit
from infra.mlflow_store import open_experiment
from infra.outbox import Outbox
from infra.registry import Registry
from tests.flows.tiny_flow import Command, write_settings
from tests.infra import job_functions as functions
from tests.infra.test_tracking import Server

PASSWORD = "planted-password-1f9c"
PLANTED = {
    "HF_TOKEN": "hf_plantedHubToken7b3d",
    "OPENAI_API_KEY": "sk-planted-openai-55aa",
    "CCAI_API_KEY": "planted-ccai-key-0d1e",
    "WANDB_API_KEY": "planted-wandb-key-9e8f",
    "PGPASSWORD": "planted-pg-password-2c4b",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-6a6a",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password-3e3e",
}
WORDS = [word.encode() for word in (*PLANTED.values(), PASSWORD)]


def found_in(folder: Path) -> list[str]:
    """Return the files below a folder that hold a planted word, databases and pickles too."""
    return [
        f"{file}: {word.decode()}"
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_symlink()
        for word in WORDS
        if word in file.read_bytes()
    ]


@pytest.fixture
def command_lines() -> Iterator[set[str]]:
    """Command lines with a planted word that any process had meanwhile."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for process in psutil.process_iter(["cmdline"]):
                line = "\0".join(process.info["cmdline"] or ())
                if any(word.decode() in line for word in WORDS):
                    seen.add(line)

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    ended.set()
    thread.join()


@pytest.mark.parametrize("kind", [PoCConfig, CollectReviewConfig, PromoteConfig])
def test_a_password_in_a_setting_is_refused_and_not_repeated(kind):
    with pytest.raises(ConfigError, match="leave the password out") as refused:
        kind(tracking_uri=f"https://me:{PASSWORD}@mlflow.example.org")
    assert PASSWORD not in str(refused.value)
    assert kind(tracking_uri="https://me@mlflow.example.org").tracking_uri


def test_what_is_said_of_a_store_that_does_not_answer_holds_no_password(tmp_path):
    uri = f"http://me:{PASSWORD}@127.0.0.1:9"
    with pytest.raises(CCAIError) as refused:
        open_experiment(uri, "poc", None)
    assert PASSWORD not in str(refused.value)
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert Registry(database, "ccai").uri == database


def test_neither_log_nor_file_of_unsent_calls_holds_a_password(tmp_path, caplog):
    def fail() -> None:
        raise OSError(f"API request to http://me:{PASSWORD}@mlflow:5000/api failed")

    caplog.set_level(logging.DEBUG)
    outbox = Outbox(tmp_path / "unsent.jsonl", lambda error: False)
    outbox.send("metrics", {"loss": 0.3}, fail)
    outbox.close()
    assert "//mlflow:5000/api failed" in (tmp_path / "unsent.jsonl").read_text("utf-8")
    assert not found_in(tmp_path)
    assert PASSWORD not in caplog.text


def test_a_job_leaves_nothing_of_its_environment(tmp_path, monkeypatch, command_lines):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    cluster = ClusterConfig(name="test", kind="local", lease_seconds=20)
    options = {"resources": Resources(), "cluster": cluster, "folder": tmp_path / "jobs"}
    assert submit(functions.add, 1, 2, key="add", **options).result() == 3
    with pytest.raises(CCAIError):
        submit(functions.divide, 1, 0, key="divide", **options).result()
    time.sleep(0.3)
    assert not found_in(tmp_path)
    assert not command_lines


@pytest.mark.slow
def test_a_whole_poc_leaves_no_secret_anywhere(tmp_path, server, command_lines, monkeypatch):
    """Through a real MLflow server whose URL has a password: files, databases, process list."""
    database = tmp_path / "server" / "mlflow.db"
    database.parent.mkdir()
    open_experiment(f"sqlite:///{database}", "ccai", "mlflow-artifacts:/")
    mlflow = Server(database, tmp_path / "server" / "artifacts")
    mlflow.start()
    try:
        mlflow.wait()
        uri = mlflow.uri.replace("//", f"//me:{PASSWORD}@")
        for name, value in {**PLANTED, "MLFLOW_TRACKING_URI": uri}.items():
            monkeypatch.setenv(name, value)
        settings = write_settings(tmp_path, max_pairs=2)
        run = Command("poc", settings, tmp_path / "run", server)
        assert run.ended(900) == 0, run.err.read_text()
    finally:
        mlflow.stop()
    assert f"mlflow ui --backend-store-uri {mlflow.uri}" in run.out.read_text("utf-8")
    assert list((tmp_path / "server" / "artifacts").rglob("report.html"))
    assert not found_in(tmp_path)
    assert not found_in(prefect_database().parent)
    assert not command_lines


def prefect_database() -> Path:
    """Return where the server of the tests keeps flow runs, their parameters and their logs."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    url = make_url(str(PREFECT_API_DATABASE_CONNECTION_URL.value()))
    database = Path(str(url.database))
    assert database.is_file()
    return database
