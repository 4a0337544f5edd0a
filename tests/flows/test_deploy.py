"""`prefect deploy --all` for real, and pausing: what a restart of `flows.serve` leaves as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import StateType

from flows.offers import all_offers
from flows.serve_config import ServeConfig
from flows.serve_plan import deployment_of, switches_of

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_prefect_deploy_registers_what_serve_would(server: str, tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="ccai", type="process"))
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
            cwd=ROOT,
            env=os.environ | {"PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for offer in all_offers():
            there = client.read_deployment_by_name(offer.full_name)
            made = deployment_of(offer, ServeConfig())
            assert there.work_pool_name == "ccai"
            assert there.parameters == made.parameters
            assert set(there.tags) == set(offer.tags)
            assert there.description == offer.description
            assert there.parameter_openapi_schema == made._parameter_openapi_schema.model_dump()
            cron = [each.schedule.cron for each in there.schedules]
            assert cron == (["0 2 * * *"] if offer.nightly else [])


@pytest.mark.slow
def test_a_paused_deployment_stays_paused_when_serve_starts_again(server: str) -> None:
    (offer,) = (each for each in all_offers() if each.nightly)
    deployment = deployment_of(offer, ServeConfig()).apply()
    with get_client(sync_client=True) as client:
        client.pause_deployment(deployment)
        deployment_of(offer, ServeConfig(), switches_of(offer)).apply()
        there = client.read_deployment(deployment)
        assert there.paused
        ours = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        assert not client.read_flow_runs(deployment_filter=ours)
        # People can still start it.
        run = client.create_flow_run_from_deployment(deployment)
        assert run.state is not None
        assert run.state.type is StateType.SCHEDULED
        client.resume_deployment(deployment)
        assert not client.read_deployment(deployment).paused

        # The other switch of the UI: that of the schedule.
        (schedule,) = client.read_deployment(deployment).schedules
        client.update_deployment_schedule(deployment, schedule.id, active=False)
        assert not switches_of(offer).schedule
        deployment_of(offer, ServeConfig(), switches_of(offer)).apply()
        assert [each.active for each in client.read_deployment(deployment).schedules] == [False]
