"""Fleets of inference servers: start, watch, scale and end them; from Python or by command.

python -m infra.fleet up --cluster slurm-pyxis --model HuggingFaceTB/SmolLM2-1.7B-Instruct

with Fleet(plan, cluster, workspace.fleets / plan.name, workspace.jobs) as fleet:
    fleet.wait_ready()
"""

from __future__ import annotations

from infra.fleet_driver import Fleet
from infra.fleet_plan import FleetPlan, InstanceState, InstanceView

__all__ = ["Fleet", "FleetPlan", "InstanceState", "InstanceView"]

if __name__ == "__main__":
    # Defined elsewhere: what this module defined would exist twice.
    from infra.fleet_cli import main

    raise SystemExit(main())
