"""The doctor on a real Slurm: what it finds, and that a bad profile submits nothing."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from infra import doctor
from tests.cluster.slurm_lab import SlurmLab

GOOD: dict[str, Any] = {
    "kind": "slurm",
    "account": "research",
    "qos": "short",
    "partition": "main",
    "gpu_type": "fake",
    "gpus_per_node": 2,
    "cpus_per_gpu": 1,
    "minutes": 10,
    "lease_seconds": 30,
    "limits": {"max_jobs": 1},
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "CCAI_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "store").mkdir()


class Doctor:
    """Runs the doctor on a profile, and knows what it said."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys
        self.store = folder / "store"

    def __call__(self, *options: str, **changes: Any) -> tuple[int, str]:
        profile = {"storage": str(self.store)} | GOOD | changes
        file = self._folder / "mine.yaml"
        file.write_text(yaml.safe_dump({k: v for k, v in profile.items() if v is not None}))
        code = doctor.main(["--cluster", str(file), *options])
        said = self._capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(tmp_path, capsys)


def submitted(lab: SlurmLab) -> set[str]:
    """Return the jobs that the lab has seen lately, over or not."""
    return set(lab.run("squeue", "-h", "-t", "all", "-o", "%i").split())


def test_a_good_profile_passes_and_every_role_s_job_has_run(on_lab: SlurmLab, ask: Doctor) -> None:
    before = submitted(on_lab)
    code, said = ask()
    assert code == 0, said
    assert len(submitted(on_lab) - before) == 4
    for line in (
        "✓ slurm-wlm 22",
        "✓ sacct works",
        "✓ partition 'main' exists (every role)",
        "✓ account 'research' is yours (every role)",
        "✓ qos 'short' is yours (every role)",
        "✓ 4 of 4 nodes of partition 'main' have 2 fake GPUs",
        "is the same on the node, and can be written there (every role)",
        "! Slurm gives a GPU on node",
        "none failed.",
    ):
        assert line in said
    assert "✗" not in said
    assert on_lab.jobs() == []
    assert list(ask.store.iterdir()) == []


def test_the_shipped_cpu_profile_passes_and_lack_of_accounting_is_noted(
    on_bare_lab: SlurmLab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CCAI_STORAGE", str(tmp_path / "store"))
    code = doctor.main(["--cluster", "slurm-cpu"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "✓ partition 'main' exists, the default one (every role)" in said
    assert "! no accounting, sacct knows nothing: what became of a job is known only until" in said
    assert said.count("no accounting") == 1


def test_a_dry_run_shows_the_scripts_and_submits_nothing(
    on_lab: SlurmLab, ask: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = submitted(on_lab)
    monkeypatch.setenv("COLUMNS", "40")
    code, said = ask("--dry-run", roles={"train": {"partition": "high"}})
    assert code == 0, said
    assert submitted(on_lab) <= before
    assert said.count("#!/bin/bash") == 4
    assert said.count("#SBATCH --partition=main") == 3
    assert said.count("#SBATCH --partition=high") == 1
    assert "#SBATCH --account=research" in said
    # Whole, however narrow the terminal is.
    assert said.count(" -m submitit.core._submit ") == 4
    assert "none failed. Nothing was" in said
    assert list(ask.store.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "wrong", "fix"),
    [
        ({"partition": "mian"}, "✗ partition 'mian' does not exist (every role)", "'main'?"),
        (
            {"roles": {"train": {"partition": "main,hihg"}}},
            "✗ partition 'hihg' does not exist (train)",
            "Did you mean 'high'?",
        ),
        ({"account": "reserch"}, "✗ account 'reserch' is not one of yours", "'research'?"),
        ({"qos": "long"}, "✗ qos 'long' is not open to you", "normal, short"),
        (
            {"gpus_per_node": 8},
            "✗ no node of partition 'main' has 8 fake GPUs (fleet, train, evaluate)",
            "Its nodes have: 2 fake GPUs.",
        ),
        ({"gpu_type": "h100"}, "✗ no node of partition 'main' has 2 h100 GPUs", "2 fake GPUs."),
        ({"cpus_per_gpu": 16}, "✗ no such node of partition 'main' has 32 CPUs", "4 at most"),
        ({"memory_gb": 900}, "has 900 GB of memory", "17 GB at most"),
        (
            {"constraint": "fast"},
            "Invalid feature specification (every role)",
            "constraint = 'fast'",
        ),
        ({"exclude": "node1,none"}, "Invalid node name", "`sinfo -N` lists the nodes."),
        ({"sbatch": {"no-such": 1}}, "no-such", "`sbatch --help`"),
        ({"storage": "/nowhere/shared"}, "✗ storage /nowhere/shared is not there", "`mkdir -p"),
    ],
)
def test_a_bad_profile_is_explained_before_anything_is_submitted(
    on_lab: SlurmLab, ask: Doctor, changes: dict[str, Any], wrong: str, fix: str
) -> None:
    before = submitted(on_lab)
    code, said = ask(**changes)
    assert code == 1, said
    assert wrong in said
    assert fix in said
    assert submitted(on_lab) <= before


@pytest.mark.parametrize("name", ["slurm-pyxis", "slurm-apptainer"])
def test_placeholders_of_shipped_profiles_are_pointed_out(
    on_lab: SlurmLab, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USER", "ada")
    assert doctor.main(["--cluster", name]) == 1
    said = capsys.readouterr().out
    assert "✗ partition 'gpu' does not exist" in said
    assert "There are: high, kill, low, main." in said
    assert "✗ storage /" in said


def test_storage_that_cannot_be_written_is_found_before_anything_is_submitted(
    on_lab: SlurmLab, ask: Doctor
) -> None:
    before = submitted(on_lab)
    # Not even root can write here.
    code, said = ask(storage="/proc/sys")
    assert code == 1
    assert "✗ /proc/sys cannot be written to" in said
    assert submitted(on_lab) <= before


def test_an_unknown_key_is_a_broken_profile(on_lab: SlurmLab, ask: Doctor) -> None:
    before = submitted(on_lab)
    code, said = ask(partitions="main")
    assert code == 2
    assert "unknown key 'partitions'. Did you mean 'partition'?" in said
    assert submitted(on_lab) <= before


def test_a_python_that_nodes_do_not_have_is_explained(
    on_lab: SlurmLab, ask: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A job that dies without a word is waited for a while; one is enough here.
    monkeypatch.setattr("infra.doctor_jobs.ROLES", ("driver",))
    code, said = ask(python="/nowhere/python")
    assert code == 1
    assert "/nowhere/python" in said
    assert "must lie where every node sees them" in said
    (kept,) = ask.store.glob("ccai-doctor-*")  # the logs
    assert str(kept) in said


class _Anything(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Anything) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_what_is_missing_on_the_node_is_found_there(
    on_lab: SlurmLab, ask: Doctor, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("//", "//me:planted-secret@"))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    image = str(ask.store / "vllm.sif")
    code, said = ask(
        container={"runtime": "apptainer", "images": {"vllm": image}},
        fleet={"engine": "vllm", "gpus": 1},
        environment={"HF_HOME": "/proc/sys/hub"},
        secrets=["CCAI_NO_SUCH_TOKEN"],
        address="eth99",
    )
    assert code == 1
    assert "`apptainer` is not on PATH (fleet)" in said
    assert f"no image {image}" in said
    assert "the hub's cache: /proc/sys cannot be written to (every role)" in said
    assert "has no network interface 'eth99'" in said
    assert "! $CCAI_NO_SUCH_TOKEN is not set" in said
    assert f"✓ MLflow at {server} answers (every role)" in said
    assert "✗ Prefect at http://127.0.0.1:9/api does not answer node" in said
    assert "refused" in said
    assert "planted-secret" not in said


def test_jobs_that_do_not_start_are_taken_back(on_lab: SlurmLab, ask: Doctor) -> None:
    blocker = on_lab.run(
        "sbatch", "--parsable", "-p", "high", "-N4", "--exclusive", "-o", "/dev/null",
        "--wrap", "sleep 300",
    ).strip()  # fmt: skip
    try:
        on_lab.wait_until(lambda: "R" in on_lab.run("squeue", "-h", "-o", "%t"), "the blocker")
        code, said = ask("--wait-minutes", "0.05")
        assert code == 1
        assert "✗ the job has not ended within 0.05 minutes (PENDING" in said
        assert on_lab.jobs() == [blocker]
    finally:
        on_lab.cancel_all()


def test_a_cluster_of_several_hosts_wants_addresses_that_others_reach(
    on_lab: SlurmLab, ask: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lab's nodes are all this machine; here they say that they are not.
    monkeypatch.setattr("infra.doctor_slurm.has_several_hosts", lambda _: True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    before = submitted(on_lab)
    code, said = ask()
    assert code == 1
    assert "✗ address is loopback, but jobs run on other machines" in said
    assert "✗ MLflow at http://localhost:5000: on a node that address means the node" in said
    assert submitted(on_lab) <= before


def test_accounting_that_is_down_is_no_failure(on_lab: SlurmLab, ask: Doctor) -> None:
    on_lab.kill("slurmdbd")
    code, said = ask("--dry-run")
    assert code == 0, said
    assert "! sacct fails (" in said
    assert "! account and qos cannot be checked:" in said


def test_where_slurm_does_not_answer_one_line_says_so(
    on_lab: SlurmLab, ask: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = on_lab.layout.conf.read_text().replace(f"={on_lab.layout.port}\n", "=9\n")
    (tmp_path / "slurm.conf").write_text(gone + "MessageTimeout=2\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    code, said = ask()
    assert code == 1
    assert "✗ Slurm does not answer" in said
    monkeypatch.setenv("PATH", "/nowhere")
    code, said = ask()
    assert code == 1
    assert "✗ sbatch, srun, squeue, scancel, scontrol, sinfo: not on PATH" in said
