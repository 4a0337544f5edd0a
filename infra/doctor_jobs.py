"""What only a job can tell of a cluster: one tiny job a role looks around where it lands.

with Consultation(cluster, base) as consultation:
    checks = consultation.test_only() or consultation.run(wait_minutes=10)
"""

from __future__ import annotations

import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ccai_core.errors import CCAIError
from infra import slurm_command
from infra.cluster import ClusterConfig, Limits, Role
from infra.doctor_checks import ROLES, Check, bad, by_role, good, note, servers
from infra.doctor_probe import ProbeReport, ProbeRequest, probe
from infra.engines import ServeSpec, engine
from infra.job_start import Order
from infra.jobs import Job, Resources, cancel_all, render, submit
from infra.slurm_refusals import refusal

_MINUTES = 5.0
_LITTLE_GB = 10.0
_POLL_S = 1.0


class Consultation:
    """The probe jobs of one profile, and a folder that they and the driver share."""

    def __init__(self, cluster: ClusterConfig, base: Path) -> None:
        """Make a folder below `base` for the jobs' files."""
        self._folder = Path(tempfile.mkdtemp(prefix="ccai-doctor-", dir=base))
        self._nonce = secrets.token_hex(8)
        (self._folder / "nonce").write_text(self._nonce, encoding="ascii")
        # Four tiny jobs are no flow run: its limits would only make them wait for one another.
        unlimited = Limits(max_jobs=len(ROLES))
        self._cluster = cluster.model_copy(update={"limits": unlimited})
        # On one machine all roles are the same.
        self.roles: tuple[Role, ...] = ROLES if cluster.kind == "slurm" else ("fleet",)
        self._failed = False

    def __enter__(self) -> Consultation:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> Literal[False]:
        if not self._failed:
            shutil.rmtree(self._folder, ignore_errors=True)
        return False

    def scripts(self) -> dict[Role, str]:
        """Return what would be submitted for each role."""
        return {
            role: render(probe, self._request(role), **self._terms(role)) for role in self.roles
        }

    def test_only(self) -> list[Check]:
        """Let Slurm itself look at the scripts; nothing is submitted."""
        found = []
        for role, script in self.scripts().items():
            file = self._folder / f"{role}.sh"
            file.write_text(script, encoding="utf-8")
            try:
                slurm_command.run("sbatch", "--test-only", str(file))
                found.append((role, good("Slurm would take a job")))
            except slurm_command.SlurmError as error:
                found.append((role, self._refused(role, str(error))))
        return by_role(found)

    def run(self, wait_minutes: float) -> list[Check]:
        """Submit the jobs, wait for them, and return what they found."""
        jobs: dict[Role, Job[ProbeReport]] = {}
        found: list[tuple[Role, Check]] = []
        try:
            for role in self.roles:
                jobs[role] = submit(probe, self._request(role), **self._terms(role))
            self._wait(list(jobs.values()), wait_minutes)
            for role, job in jobs.items():
                found += [(role, check) for check in self._heard(role, job, wait_minutes)]
        except CCAIError as error:  # of a submission
            found.append((role, bad(str(error), "Nothing ran for this role.")))
        finally:
            cancel_all(list(jobs.values()))
        self._failed = any(check.mark == "bad" for _, check in found)
        return by_role(found)

    def _wait(self, jobs: list[Job[ProbeReport]], minutes: float) -> None:
        deadline = time.monotonic() + 60 * minutes
        while any(job.state() in {"queued", "running"} for job in jobs):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_S)

    def _heard(self, role: Role, job: Job[ProbeReport], minutes: float) -> Iterator[Check]:
        status = job.status()
        if status.state in {"queued", "running"}:
            said = f"{status.word} {status.reason}".strip()
            yield bad(
                f"the job has not ended within {minutes:g} minutes ({said})",
                "Try again when the cluster is less busy, or wait longer with --wait-minutes.",
            )
            return
        try:
            report = job.result()
        except CCAIError as error:
            yield bad(
                f"the job failed: {error}",
                "Its Python (`python` in the profile) and this project must lie where every node "
                f"sees them. Its files are kept in {self._folder}.",
            )
            return
        yield from self._findings(role, report)

    def _findings(self, role: Role, report: ProbeReport) -> Iterator[Check]:
        cluster = self._cluster.for_role(role)
        yield _ran(report)
        yield self._storage(role, report)
        if report.free_gb < _LITTLE_GB:
            yield note(
                f"{report.free_gb:.1f} GB free in {self._folder.parent}", "Models need more."
            )
        yield _cache(report)
        for name, url in servers().items():
            yield _reached(name, url, report)
        if report.address_problem:
            yield bad(f"no port on {report.node}: {report.address_problem}", "Set `address`.")
        else:
            yield good(f"a server can listen at {report.listened_at.rpartition(':')[0]}")
        if _gpus(cluster, role):
            yield _seen_gpus(report)
        for name in report.unset_secrets:
            yield note(f"${name} is not set, so jobs do not get it", f"`export {name}=...`.")
        if role == "fleet" and cluster.fleet:
            yield from _engine(cluster, report)

    def _storage(self, role: Role, report: ProbeReport) -> Check:
        where = f"storage {self._folder.parent}"
        reply = self._folder / f"reply-{role}"
        if report.storage_problem:
            return bad(
                f"{where} on {report.node}: {report.storage_problem}",
                "Name a folder in `storage` that every node sees under the same path.",
            )
        is_back = reply.exists() and reply.read_text(encoding="ascii") == self._nonce
        if report.nonce != self._nonce or not is_back:
            return bad(
                f"{where} is another one on {report.node}: a file written there is not here",
                "Name a folder in `storage` that is on a file system all nodes share.",
            )
        return good(f"{where} is the same on the node, and can be written there")

    def _request(self, role: Role) -> ProbeRequest:
        cluster = self._cluster.for_role(role)
        return ProbeRequest(
            cluster=cluster,
            folder=self._folder,
            reply=f"reply-{role}",
            urls=tuple(servers().values()),
            executable=_executable(cluster) if role == "fleet" else None,
        )

    def _terms(self, role: Role) -> dict[str, Any]:
        cluster = self._cluster.for_role(role)
        return {
            "resources": Resources(gpus=_gpus(cluster, role), minutes=_MINUTES),
            "cluster": self._cluster,
            "key": f"doctor-{role}",
            "folder": self._folder,
            "role": role,
        }

    def _refused(self, role: Role, said: str) -> Check:
        terms = self._terms(role)
        cluster = self._cluster.for_role(role)
        order = Order(probe, terms["resources"], cluster, self._folder, role, None, 10.0, "")
        record = order.record(self._folder / terms["key"], attempt=1, name=terms["key"])
        message, _, fix = str(refusal(said, record, cluster)).partition(". ")
        # The same for several roles is said once.
        return bad(
            f"Slurm would not take a job: {message.partition(': ')[2]}",
            fix.replace(f" (role {role})", ""),
        )


def _gpus(cluster: ClusterConfig, role: Role) -> int:
    if role == "driver" or cluster.kind == "local":
        return 0
    if role == "fleet" and cluster.fleet:
        return min(1, cluster.fleet.gpus)
    return cluster.gpus_of_model(role)


def _executable(cluster: ClusterConfig) -> str | None:
    """Return the program that an engine outside of containers is started with."""
    if cluster.fleet is None or cluster.container.runtime != "none":
        return None
    spec = ServeSpec(
        engine=cluster.fleet.engine,
        model="model",
        executable=cluster.fleet.executable,
        gpus=cluster.fleet.gpus,
    )
    return engine(spec.engine).command(spec, port=1)[0]


def _ran(report: ProbeReport) -> Check:
    ours = platform.python_version()
    if report.python.split(".")[:2] != ours.split(".")[:2]:
        return bad(
            f"Python {report.python} on {report.node}, {ours} here: results cannot be read",
            "Set `python` to the interpreter you start from, or start from that one.",
        )
    return good(f"a job ran on {report.node} with Python {report.python}")


def _cache(report: ProbeReport) -> Check:
    if not report.cache_problem:
        return good(f"the hub's cache {report.cache} is there: {report.cached_models} models")
    if report.cached_models:
        return note(
            f"{report.cache_problem}; {report.cached_models} models in it can be used",
            "To load others, set HF_HOME under `environment`.",
        )
    return bad(
        f"the hub's cache: {report.cache_problem}",
        "Set HF_HOME under `environment` to a folder on storage.",
    )


def _reached(name: str, url: str, report: ProbeReport) -> Check:
    said = report.unreachable.get(url)
    if said is None:
        return good(f"{name} at {url} answers")
    return bad(
        f"{name} at {url} does not answer {report.node}: {said}",
        "Start it with --host 0.0.0.0 on a machine that the nodes reach, open its port, and put "
        "that machine's name into the URL.",
    )


def _seen_gpus(report: ProbeReport) -> Check:
    if not report.visible_gpus:
        return bad(
            f"{report.node} gave the job no GPU (CUDA_VISIBLE_DEVICES is empty)",
            "Check `gpus_per_node`; ask your administrator for the nodes' gres.conf.",
        )
    if not report.gpu_names:
        return note(
            f"Slurm gives a GPU on {report.node}, but nvidia-smi lists none",
            "If its GPUs are NVIDIA's, their driver is missing there.",
        )
    return good(f"GPU {report.visible_gpus} on {report.node}: {report.gpu_names[0]}")


def _engine(cluster: ClusterConfig, report: ProbeReport) -> Iterator[Check]:
    runtime = cluster.container.runtime
    if report.executable_problem:
        yield bad(
            f"the engine's program on {report.node}: {report.executable_problem}",
            "Install the engine there, name it in fleet.executable, or load its module.",
        )
    if report.container_problem:
        yield bad(
            f"container runtime {runtime} on {report.node}: {report.container_problem}",
            "Load its module (`modules`), or set another container.runtime.",
        )
    elif runtime != "none":
        yield good(f"container runtime {runtime} is there")
    ours = cluster.fleet and cluster.container.images.get(cluster.fleet.engine)
    for image in report.missing_images:
        # An engine that no flow uses need not be there until somebody names it.
        grade = bad if image == ours else note
        how = "Make it once; docs/clusters.md says how."
        yield grade(f"no image {image} on {report.node}", how)
