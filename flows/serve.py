"""Every flow in the Prefect UI: forms that explain themselves, runs, schedules, cancellation.

    python -m flows.serve --dry-run
    PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.serve
    python -m flows.serve --local 2 --limits my-cluster 4 --time-zone Europe/Berlin

Registers the deployments and runs what is started there, until it is told to stop. It can be
started again at any time: deployments are the same ones, and runs that were late are run.
"""

import sys

from prefect.settings import get_current_settings

from ccai_core.errors import ConfigError
from flows.cli import run_command
from flows.offers import all_offers
from flows.results import Summary
from flows.serve_config import ServeConfig
from flows.serve_plan import deployment_of, plan_serve, prefect_yaml, switches_of
from flows.serve_runner import run_deployments
from tasks.late_runs import telling_of_late_runs
from tasks.limits import set_limits


def serve(config: ServeConfig) -> Summary:
    """Register every deployment and run what people start, until a signal ends it.

    Raises:
        ConfigError: no Prefect server is named, or it does not answer.
    """
    api = get_current_settings().api.url
    if not api:
        raise ConfigError(
            "PREFECT_API_URL is not set, so there is no server to serve for. `make up` starts one "
            "with everything else; or `prefect server start`, then "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`."
        )
    offers = all_offers()
    try:
        set_limits(config.all_limits, {offer.full_name: config.at_once for offer in offers})
    except OSError as error:
        raise ConfigError(f"The Prefect server at {api} does not answer ({error}).") from None
    deployments = [deployment_of(offer, config, switches_of(offer)) for offer in offers]
    with telling_of_late_runs(config.late_minutes):
        run_deployments(deployments, at_most=config.runs)
    return Summary(made={"deployments": str(len(deployments))})


PRINTS = {"prefect_yaml": ("Print prefect.yaml, and do nothing.", prefect_yaml)}

if __name__ == "__main__":
    sys.exit(
        run_command(
            ServeConfig,
            serve,
            plan_serve,
            prog="python -m flows.serve",
            about=__doc__,
            prints=PRINTS,
        )
    )
