"""One step of a flow: an artifact that is reused when complete, else made by a job and recorded.

result = make(site, artifact, inputs, train, (config, model, pairs, artifact.folder), ...)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from prefect.logging import get_run_logger

from infra.artifacts import Artifact
from infra.jobs import forget, submit
from tasks.cancellation import Watch
from tasks.job_view import JobView
from tasks.places import Place
from tasks.site import Site

T = TypeVar("T")


def make(
    site: Site,
    artifact: Artifact,
    inputs: Mapping[str, Any],
    function: Callable[..., T],
    arguments: tuple[Any, ...],
    *,
    place: Place,
    follow: Callable[[str], None],
    facts: Callable[[T], Mapping[str, Any]],
    parents: tuple[str, ...] = (),
    leave_out: tuple[str, ...] = (),
) -> T:
    """Run `function(*arguments)` as the artifact's job, wait for it, and write the record.

    `place` says where the job runs and what it asks for. Whoever calls this again, after whatever
    happened, joins the job if it still runs and reads its result if it is through. `follow` is
    called at every look and told what the step waits for, if anything. `facts` go into the record.
    """
    if artifact.record() is not None or not any(artifact.folder.iterdir()):
        # Not complete although it has a record, or nothing is there: what an earlier job left was
        # damaged or removed, so its result counts no longer.
        (artifact / "record.json").unlink(missing_ok=True)
        forget(artifact.name, folder=site.workspace.jobs)
    job = submit(
        function,
        *arguments,
        resources=place.resources,
        cluster=place.cluster,
        role=place.role,
        key=artifact.name,
        folder=site.workspace.jobs,
        unwind_seconds=place.unwind_seconds,
        owner=site.owner,
    )
    try:
        about = f"{job.job_id}: {job.key} attempt {job.attempt}"
        site.run.tags({f"job.{artifact.kind}": about})
        watch, view = Watch(), JobView(job)

        def look() -> None:
            watch.check()
            view.look()
            follow(view.waits or place.lacks())

        value = job.result(on_poll=look)
    except BaseException:
        # An interruption may come before `result` is there to end the job.
        job.cancel()
        raise
    view.look()
    follow("")
    artifact.finish(inputs, parents=parents, facts=facts(value), leave_out=leave_out)
    return value


def reused(artifact: Artifact) -> bool:
    """Whether the artifact is there already; says so in the flow run's log."""
    if not artifact.is_complete():
        return False
    get_run_logger().info("%s is there already.", artifact.name)
    return True


def relative(path: Path, root: Path) -> str:
    """Return a path as seen from `root`, for reports that move with their workspace."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
