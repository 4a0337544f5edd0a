"""One instance of a fleet as its driver sees it: its job, its address, its failures.

member.look(status, endpoint, answers=True, now=time.monotonic())
member.state        # "ready"
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ccai_core.errors import CCAIError
from infra.endpoint import Endpoint
from infra.fleet_plan import InstanceState, InstanceView
from infra.jobs import Job, JobStatus

logger = logging.getLogger(__name__)

STEADY_S = 10.0
"""An instance that served this long was not wrong from the start: its failures are forgotten."""

_LONGEST_PAUSE_S = 60.0
_LONGEST_PAUSE_IN_NEED_S = 10.0


@dataclass
class Member:
    """What the driver remembers of one instance between two looks."""

    number: int
    job: Job[str] | None = None
    status: JobStatus | None = None
    endpoint: Endpoint | None = None
    """Its registered address, if it belongs to the job's present start."""
    state: InstanceState = "waiting"
    note: str = ""
    failures: int = 0
    """Ends in a row without having served steadily."""
    due: float = 0.0
    """When it may be submitted (monotonic)."""
    submitting: bool = False
    arrived: Job[str] | None = None
    """What its submission came to, until the driver's next look."""
    refusal: CCAIError | None = None
    """Why it could not be submitted, until the driver's next look."""
    concluding: bool = False
    how: str | None = None
    """How its job ended, until the driver's next look."""
    leaving: bool = False
    """It is to end and not to come back."""
    ready_since: float | None = None
    _running_since: float | None = None
    _came_up: bool = False
    _restarts: int = 0
    _stale: set[Endpoint] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Name within the fleet, as in its endpoint's file."""
        return str(self.number)

    @property
    def is_idle(self) -> bool:
        """Whether it has no job, and none on its way."""
        return self.job is None and self.arrived is None and not self.submitting

    @property
    def is_over(self) -> bool:
        """Whether its job has ended, for whatever reason."""
        return self.status is not None and self.status.state not in {"queued", "running"}

    def joined(self, job: Job[str]) -> None:
        """Take up a job that was submitted or found."""
        self.job, self.status, self.endpoint, self.arrived = job, None, None, None
        self.note, self.state = "", "queued"
        self._new_start(0)

    def look(
        self, status: JobStatus, registered: Endpoint | None, *, answers: bool, now: float
    ) -> None:
        """Take in what is known of the job and of the address."""
        was_running = self.status is not None and self.status.state == "running"
        requeued = status.restarts > self._restarts or (was_running and status.state == "queued")
        if requeued:
            self._forget(registered, status)
        self.status, self.note = status, status.reason if status.state == "queued" else ""
        if status.state == "running" and self._running_since is None:
            self._running_since = now
        self.endpoint = self._valid(registered, status)
        self._settle(answers, now)

    def is_overdue(self, seconds: float, now: float) -> bool:
        """Tell whether it has been running for longer than `seconds` without ever answering."""
        since = self._running_since
        return since is not None and not self._came_up and now - since > seconds

    def failed(self, now: float, *, in_need: bool) -> str:
        """Give up the job, which is over or was refused; return why. It is due again later."""
        how = str(self.refusal or self.how)
        self.failures += 1
        longest = _LONGEST_PAUSE_IN_NEED_S if in_need else _LONGEST_PAUSE_S
        # The first replacement comes at once: losing a node or a job is ordinary.
        pause = min(2.0 ** (self.failures - 2), longest) if self.failures > 1 else 0.0
        self.due = now + pause
        self.job, self.status, self.endpoint, self.refusal, self.how = None, None, None, None, None
        self.state, self.ready_since = "waiting", None
        self.note = how.strip().splitlines()[0]
        return how

    def view(self) -> InstanceView:
        """Return what to tell others."""
        job, status = self.job, self.status
        return InstanceView(
            name=self.name,
            state="draining" if self.leaving else self.state,
            job_id=job.job_id if job else "",
            attempt=job.attempt if job else 0,
            restarts=status.restarts if status else 0,
            node=status.node if status else "",
            url=self.endpoint.url if self.endpoint else "",
            note=self.note,
        )

    def _settle(self, answers: bool, now: float) -> None:
        if self.is_over:
            self.state, self.ready_since, self.endpoint = "draining", None, None
        elif self.status is None or self.status.state == "queued":
            self.state, self.ready_since = "queued", None
        elif self.endpoint is None or not (answers or self._came_up):
            self.state, self.ready_since = "starting", None
        elif not answers:
            self.state, self.ready_since = "silent", None
        else:
            if self.ready_since is None:
                logger.info("Instance %s is ready at %s.", self.name, self.endpoint.url)
                self.ready_since = now
            self.state, self._came_up = "ready", True
            if now - self.ready_since >= STEADY_S:
                self.failures = 0

    def _valid(self, registered: Endpoint | None, status: JobStatus) -> Endpoint | None:
        if registered is None or self.job is None or status.state != "running":
            return None
        if registered.job_id != self.job.job_id or registered in self._stale:
            return None
        return registered

    def _forget(self, registered: Endpoint | None, status: JobStatus) -> None:
        """The scheduler took the place away: the old address is nobody's, or another's."""
        logger.info("Instance %s was queued again; its old address is forgotten.", self.name)
        if self.endpoint is not None:
            self._stale.add(self.endpoint)
        # Whatever is registered while the job waits was left behind by its last start.
        if registered is not None and status.state == "queued":
            self._stale.add(registered)
        self._new_start(status.restarts)

    def _new_start(self, restarts: int) -> None:
        self._restarts = restarts
        self._running_since, self._came_up, self.ready_since = None, False, None
