"""The doctor where there is no Slurm: a profile of this machine, and the probe as a function."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import doctor
from infra.cluster import ClusterConfig, Container, FleetDefaults
from infra.doctor_checks import bad, by_role, good, is_loopback, servers
from infra.doctor_jobs import Consultation, _executable
from infra.doctor_probe import ProbeReport, ProbeRequest, hub_cache, probe
from infra.doctor_slurm import _GPUS, _minutes


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(profile: str, *options: str) -> tuple[int, str]:
        (tmp_path / "mine.yaml").write_text(profile)
        where = ["--cluster", str(tmp_path / "mine.yaml"), "--workspace", str(tmp_path / "runs")]
        code = doctor.main([*where, *options])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_a_profile_of_this_machine_passes_and_leaves_nothing(ask, tmp_path: Path) -> None:
    code, said = ask("kind: local\ndevice: cpu\n")
    assert code == 0, said
    assert "✓ models run on cpu" in said
    assert "✓ a job ran on" in said
    assert "✓ a server can listen at http://127.0.0.1" in said
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_dry_run_starts_nothing(ask, tmp_path: Path) -> None:
    code, said = ask("kind: local\ndevice: cpu\n", "--dry-run")
    assert code == 0, said
    assert "infra.doctor_probe" in said
    assert "a job ran on" not in said
    assert "Nothing was submitted" in said


def test_a_device_that_is_not_there_is_an_error(ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    code, said = ask("kind: local\ndevice: mps\n")
    assert code == 1
    assert "✗ device is mps, but PyTorch" in said
    assert "→ Set `device` to auto or one of:" in said
    assert "a job ran" not in said


def test_a_folder_that_cannot_be_written_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.main(["--cluster", "local", "--workspace", "/proc/sys/runs"])
    assert code == 1
    assert "✗ /proc/sys cannot be written to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("kind: local\ndevise: cpu\n", "unknown key 'devise'. Did you mean 'device'?"),
        ("kind: slurm\n", "storage is missing"),
        ("kind: slurm\nstorage: $NO_SUCH_FOLDER/x\n", "variable NO_SUCH_FOLDER is not set"),
    ],
)
def test_a_broken_profile_ends_with_2(ask, profile: str, message: str) -> None:
    code, said = ask(profile)
    assert code == 2
    assert message in said


def test_an_unknown_profile_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--cluster", "slurm-pixys"]) == 2
    assert "Did you mean 'slurm-pyxis'?" in capsys.readouterr().err


def _probe(folder: Path, cluster: ClusterConfig | None = None, **more) -> ProbeReport:
    cluster = cluster or ClusterConfig(name="here", kind="local")
    return probe(ProbeRequest(cluster=cluster, folder=folder, reply="reply", **more))


def test_the_probe_answers_in_the_driver_s_folder(tmp_path: Path) -> None:
    (tmp_path / "nonce").write_text("4711")
    report = _probe(tmp_path)
    assert (report.nonce, report.storage_problem) == ("4711", "")
    assert (tmp_path / "reply").read_text() == "4711"
    assert report.address_problem == ""
    assert report.listened_at.startswith("http://127.0.0.1:")


def test_the_probe_survives_a_node_without_the_folder(tmp_path: Path) -> None:
    report = _probe(tmp_path / "elsewhere")
    assert report.nonce == ""
    assert "No such file or directory" in report.storage_problem


def test_the_probe_counts_cached_models(tmp_path: Path) -> None:
    for name in ("models--a--b", "models--c--d", "datasets--e--f"):
        (tmp_path / "hub" / "hub" / name).mkdir(parents=True)
    report = _probe(tmp_path)
    assert report.cache == tmp_path / "hub" / "hub"
    assert (report.cached_models, report.cache_problem) == (2, "")


@pytest.mark.parametrize(
    "set_to", [{}, {"HF_HOME": "~/hf"}, {"HF_HUB_CACHE": "/a/b"}, {"XDG_CACHE_HOME": "/c"}]
)
def test_the_hub_s_cache_is_where_huggingface_hub_looks(
    monkeypatch: pytest.MonkeyPatch, set_to: dict[str, str]
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    ask = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert hub_cache() == Path(said.stdout.strip())


def test_the_probe_says_what_does_not_answer(tmp_path: Path) -> None:
    report = _probe(tmp_path, urls=("http://127.0.0.1:9/api",))
    assert "refused" in report.unreachable["http://127.0.0.1:9/api"]


def test_the_probe_finds_containers_and_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.sqsh").touch()
    images = {
        "vllm": f"{tmp_path}/there.sqsh",
        "tgi": f"{tmp_path}/gone.sqsh",
        "sglang": "org/name",
    }
    container = Container(runtime="pyxis", images=images)
    cluster = ClusterConfig(name="x", kind="local", container=container)
    assert _probe(tmp_path, cluster).container_problem == "`enroot` is not on PATH"
    # An srun of which the help names pyxis's option.
    for name, text in (("enroot", ""), ("srun", "echo ' --container-image=[USER@]IMAGE'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    report = _probe(tmp_path, cluster)
    assert report.container_problem == ""
    assert report.missing_images == (f"{tmp_path}/gone.sqsh",)


def test_the_engine_s_program_is_looked_for(tmp_path: Path) -> None:
    cluster = ClusterConfig(name="x", kind="local", fleet=FleetDefaults(executable="/nowhere/vllm"))
    report = _probe(tmp_path, cluster, executable=_executable(cluster))
    assert report.executable_problem == "`/nowhere/vllm` is not there, or cannot be run"
    ours = cluster.model_copy(update={"fleet": FleetDefaults(engine="transformers")})
    assert _probe(tmp_path, ours, executable=_executable(ours)).executable_problem == ""


def test_a_folder_of_the_same_name_elsewhere_is_not_the_same_storage(tmp_path: Path) -> None:
    with Consultation(ClusterConfig(name="x", kind="local"), tmp_path) as consultation:
        (folder,) = tmp_path.iterdir()
        good_report = _probe(folder)
        assert consultation._storage("fleet", good_report).mark == "bad"  # its reply is not here
        (folder / "reply").rename(folder / "reply-fleet")
        assert consultation._storage("fleet", good_report).mark == "good"
        other = good_report.model_copy(update={"nonce": "of another disk"})
        assert "is another one on" in consultation._storage("fleet", other).text
    assert not folder.exists()


def test_equal_findings_of_several_roles_are_one_line() -> None:
    said = by_role(
        [
            ("driver", good("a")), ("fleet", good("a")), ("train", bad("a", "b")),
            *((role, good("c")) for role in ("driver", "fleet", "train", "evaluate")),
        ]
    )  # fmt: skip
    assert [each.text for each in said] == ["a (driver, fleet)", "a (train)", "c (every role)"]


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("infinite", None), ("30:00", 30), ("2-00:00:00", 2880), ("1:30:00", 90), ("n/a", None)],
)
def test_time_limits_are_read(limit: str, minutes: float | None) -> None:
    assert _minutes(limit) == minutes


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("gpu:h100:8(S:0-1)", [("h100", "8")]),
        ("gpu:4", [("", "4")]),
        ("craynetwork:4,gpu:a100:2,gpu:v100:1", [("a100", "2"), ("v100", "1")]),
        ("(null)", []),
    ],
)
def test_gpus_are_read(gres: str, found: list[tuple[str, str]]) -> None:
    assert _GPUS.findall(gres) == found


def test_passwords_in_urls_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@head:5000")
    monkeypatch.setenv("PREFECT_API_URL", "ephemeral")
    assert servers() == {"MLflow": "http://head:5000"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:5000", True), ("http://localhost:4200/api", True), ("http://head", False)],
)
def test_loopback_addresses_are_recognised(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected
