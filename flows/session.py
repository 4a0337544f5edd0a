"""What surrounds a flow run: workspace locked, cluster read, MLflow run open, device chosen.

with open_site(config, "poc", tags) as site:
    ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prefect.runtime import flow_run

from ccai_core.types import fingerprint
from flows.command import command_for
from flows.config import RunConfig
from flows.console import current_show
from infra.cluster import ClusterConfig, load_cluster
from infra.provenance import code_version, versions
from infra.tracking import Tracking
from infra.workspace import Workspace
from tasks.limits import run_slot
from tasks.log_lines import keep_log_lines
from tasks.pages import page_of_flow_run, show_mlflow
from tasks.shown import send_what_is_kept
from tasks.site import Site

# A run of days is not to end with a hole in its record because a server is being restarted.
_PATIENCE_S = 600.0


def read_cluster(config: RunConfig) -> ClusterConfig:
    """Return the cluster profile, with the device that the user named, if any.

    Raises:
        ConfigError: there is no such profile, or something in it is wrong.
    """
    cluster = load_cluster(config.cluster)
    return cluster.model_copy(update={"device": config.device}) if config.device else cluster


@contextmanager
def open_site(
    config: RunConfig, name: str, tags: Mapping[str, str], need_gb: float = 3.0
) -> Iterator[Site]:
    """Hold the workspace and report one MLflow run for the flow run.

    Raises:
        ArtifactError: the workspace is in use, not writable, or its disk is nearly full.
        ConfigError: the cluster profile or the tracking server cannot be used.
    """
    keep_log_lines()
    cluster = read_cluster(config)
    workspace = Workspace(config.workspace, need_gb=need_gb)
    with run_slot(config.cluster), workspace.lock():
        tracking = Tracking(config.tracking_uri, config.experiment, workspace.root)
        settings = config.model_dump(mode="json")
        about = {
            "stage": "flow",
            "flow": name,
            "git.commit": code_version(),
            "prefect.flow_run": str(flow_run.get_id() or ""),
            "settings": fingerprint(settings),
            "command": command_for(name.replace("-", "_"), config),
            **{f"version.{package}": number for package, number in versions().items()},
            **tags,
        }
        # Whoever interrupts or cancels a run does not want to wait for a server.
        patience = 0.0
        if page := page_of_flow_run():
            # Markdown: what MLflow's page of the run begins with.
            about["mlflow.note.content"] = f"[This flow run in Prefect]({page})"
        try:
            with tracking.run(flow_run.get_name() or name, tags=about) as run:
                run.params(settings)
                show_mlflow(run)
                owner = str(flow_run.get_id() or name)
                yield Site(workspace, cluster, tracking, run, current_show(), owner)
            patience = _PATIENCE_S
        except Exception:
            patience = _PATIENCE_S
            raise
        finally:
            tracking.close(patience)
            send_what_is_kept(patience)
