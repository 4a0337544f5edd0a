"""The jobs of a fleet: find those that live, submit and end them without holding up the driver.

Submitting can block for a place, ending takes as long as an instance drains; both happen in threads
of their own. What a submission came to is left at the member, and the driver's next look takes it.

    jobs = FleetJobs(plan, cluster, files, workspace.jobs, owner="")
    jobs.submit_soon([member])
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ccai_core.errors import CCAIError
from infra.cluster import ClusterConfig
from infra.endpoint import Endpoint, read_key
from infra.engines import engine
from infra.fleet_health import ask_to_end
from infra.fleet_member import Member
from infra.fleet_plan import FleetFiles, FleetPlan
from infra.instance import InstanceSpec, serve_instance
from infra.job_record import read_record
from infra.job_start import is_alive
from infra.jobs import Job, JobStatus, cancel_all, forget, render, submit
from infra.lease import Lease

logger = logging.getLogger(__name__)

# Together under the minute within which nothing of a killed driver's fleet may be left: an
# instance notices, gives the calls in flight some time, and ends its engine.
LEASE_S = 35.0
DRAIN_S = 10.0
UNWIND_S = 25.0

_SUBMISSION_S = 30.0
_LOOK_S = 0.5
# An engine that crashes is up again sooner than a job that queues; one that always crashes is
# replaced as a whole.
_MAX_RESTARTS = 3


class FleetJobs:
    """One job an instance, all under one lease."""

    lease: Lease
    """The driver's; set when the fleet is entered."""

    def __init__(
        self, plan: FleetPlan, cluster: ClusterConfig, files: FleetFiles, folder: Path, owner: str
    ) -> None:
        """Prepare to submit instances of `plan`; `folder` keeps the jobs' records.

        Raises:
            ConfigError: the engine cannot do what the plan asks of it.
        """
        # What the engine cannot do is refused here, not by each instance after its wait in a queue.
        engine(plan.serve.engine).command(plan.serve, port=1)
        seconds = min(cluster.lease_seconds, LEASE_S)
        self._plan, self._files, self._folder = plan, files, folder.expanduser().resolve()
        self._cluster = cluster.model_copy(update={"lease_seconds": seconds})
        self._owner = owner
        self._closed = threading.Event()
        self._submitter: threading.Thread | None = None

    def live(self) -> list[int]:
        """Return the numbers of the instances whose jobs are queued or running."""
        found = []
        for file in self._folder.glob(f"{self._plan.key_prefix}*/job.json"):
            number = file.parent.name.removeprefix(self._plan.key_prefix)
            record = read_record(file.parent)
            if number.isdecimal() and record and is_alive(record, file.parent / record.folder_name):
                found.append(int(number))
        return sorted(found)

    def attach(self, number: int) -> Member:
        """Join the job of an instance that lives: from now on our lease keeps it."""
        member = Member(number)
        member.joined(self._submit(member))
        return member

    def submit_soon(self, members: Sequence[Member]) -> None:
        """Submit these, unless earlier ones still wait for their place."""
        if not members or (self._submitter is not None and self._submitter.is_alive()):
            return
        for member in members:
            member.submitting = True
        self._submitter = threading.Thread(
            target=self._submit_all, args=(list(members),), name="fleet submissions", daemon=True
        )
        self._submitter.start()

    def status(self, member: Member) -> JobStatus:
        """Return the state of a member's job."""
        if member.job is None:
            raise RuntimeError(f"Instance {member.name} has no job.")
        return member.job.status()

    def cancel_soon(self, members: Sequence[Member]) -> None:
        """Let these drain and end."""
        leaving = [(each.job, each.endpoint) for each in members if each.job is not None]
        if leaving:
            threading.Thread(
                target=self._let_go, args=(leaving,), name="fleet endings", daemon=True
            ).start()

    def _let_go(self, leaving: Sequence[tuple[Job[str], Endpoint | None]]) -> None:
        """End jobs; those that serve are asked first, and have time for what they are at.

        The signal that a cancelled job gets reaches the engine too, and would cut its calls.
        """
        serving = [endpoint for _, endpoint in leaving if endpoint is not None]
        hearing = ask_to_end(serving, read_key(self._files.folder)) if serving else set()
        draining = [job for job, endpoint in leaving if endpoint in hearing]
        _end([job for job, endpoint in leaving if endpoint not in hearing])
        until = time.monotonic() + UNWIND_S
        with contextlib.suppress(CCAIError):
            while time.monotonic() < until and any(job.state() == "running" for job in draining):
                time.sleep(_LOOK_S)
        _end(draining)

    def conclude_soon(self, member: Member) -> None:
        """Find out how a job that is over has ended, and clear away what is left of it.

        The scheduler can take its time over that, and may even have queued the job again.
        """
        if member.job is not None:
            member.concluding = True
            threading.Thread(
                target=_conclude, args=(member, member.job), name="fleet losses", daemon=True
            ).start()

    def close(self, members: Sequence[Member]) -> None:
        """End these and whatever is being submitted, and return when they are gone."""
        self._closed.set()
        _end(_jobs(members))
        if self._submitter is not None:
            # One that waits for a place has it now that ours are free, and ends itself.
            self._submitter.join(_SUBMISSION_S)

    def render(self) -> str:
        """Return the script that would be submitted for the first instance."""
        return render(
            serve_instance,
            self._spec(Member(0)),
            resources=self._plan.resources,
            cluster=self._cluster,
            key=f"{self._plan.key_prefix}0",
            folder=self._folder,
            role="fleet",
            unwind_seconds=UNWIND_S,
            owner=self._owner,
        )

    def _submit_all(self, members: list[Member]) -> None:
        for member in members:
            try:
                if not (self._closed.is_set() or member.leaving):
                    self._hand_over(member, self._submit(member))
            except CCAIError as error:
                member.refusal = error
            finally:
                member.submitting = False

    def _hand_over(self, member: Member, job: Job[str]) -> None:
        if self._closed.is_set():
            _end([job])
        else:
            member.arrived = job

    def _submit(self, member: Member) -> Job[str]:
        key = f"{self._plan.key_prefix}{member.name}"
        # An instance that ended in order has a result; the fleet wants it back all the same.
        forget(key, self._folder)
        return submit(
            serve_instance,
            self._spec(member),
            resources=self._plan.resources,
            cluster=self._cluster,
            key=key,
            folder=self._folder,
            role="fleet",
            lease=self.lease,
            unwind_seconds=UNWIND_S,
            owner=self._owner,
        )

    def _spec(self, member: Member) -> InstanceSpec:
        return InstanceSpec(
            fleet=self._files.folder,
            name=member.name,
            serve=self._plan.serve,
            address=self._cluster.address,
            ready_seconds=self._plan.ready_minutes * 60,
            max_restarts=_MAX_RESTARTS,
            drain_seconds=DRAIN_S,
        )


def _jobs(members: Sequence[Member]) -> list[Job[str]]:
    return [each.job for each in members if each.job is not None]


def _end(jobs: list[Job[str]]) -> None:
    try:
        cancel_all(jobs)
    except CCAIError as error:
        # The lease is the second way out: nothing of a fleet outlives its driver.
        logger.warning("Could not end %s: %s", ", ".join(each.key for each in jobs), error)


def _conclude(member: Member, job: Job[str]) -> None:
    try:
        member.how = f"Job {job.key!r} ended by itself: {job.result()}"
    except CCAIError as error:
        member.how = str(error)
    finally:
        member.concluding = False
