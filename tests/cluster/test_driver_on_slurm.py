"""A driver that is a Slurm job itself: sent away, found again, requeued in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ccai_core.training_data import read_pairs
from infra.slurm_driver import DriverJob
from tests.cluster.slurm_lab import SlurmLab
from tests.cluster.test_flows import api as api
from tests.flows.tiny_flow import ROOT, Command, write_settings

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@pytest.fixture
def settings(on_lab: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("CCAI_STORAGE", str(tmp_path))
    profile = yaml.safe_load((ROOT / "cluster_configs" / "slurm-cpu.yaml").read_text())
    profile |= {"name": "sent", "driver": "slurm"}
    (tmp_path / "sent.yaml").write_text(yaml.safe_dump(profile))
    values = write_settings(tmp_path, cluster=str(tmp_path / "sent.yaml"), max_pairs=30)
    return {k: v for k, v in values.items() if k not in {"device", "training", "evaluation"}}


def test_a_requeued_driver_goes_on_and_is_found_meanwhile(
    on_lab: SlurmLab, settings: dict[str, Any], tmp_path: Path, api: str
) -> None:
    def command(name: str) -> str:
        sent = Command("preference_data", settings, tmp_path / name, api)
        assert sent.ended(120) == 0, sent.said()
        return sent.said()

    # All from one file: the command is what its job is known by.
    assert "is now Slurm job" in command("1")
    job = DriverJob.model_validate_json((tmp_path / "ws" / "driver" / "job.json").read_text())
    journal = tmp_path / "ws" / "journal" / "calls.jsonl"
    on_lab.wait_until(
        lambda: journal.exists() and journal.stat().st_size > 10_000, "some calls", 240
    )
    assert f"is already Slurm job {job.job_id}" in command("1")
    other = Command("preference_data", {**settings, "max_pairs": 3}, tmp_path / "2", api)
    assert other.ended(120) == 2
    assert "another command" in other.said()

    on_lab.run("scontrol", "requeue", job.job_id)
    on_lab.wait_until(
        lambda: any((tmp_path / "ws" / "artifacts").glob("pairs-*/record.json")), "pairs", 480
    )
    (folder,) = (tmp_path / "ws" / "artifacts").glob("pairs-*")
    assert len(read_pairs(folder)) == 30
    on_lab.wait_for_no_jobs(120)
    assert "30 pairs" in job.log.read_text()
