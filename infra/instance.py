"""One instance of a fleet: an engine, kept running, behind a proxy that wants the fleet's key.

It chooses its port by binding it, waits until its engine is ready, and registers itself in the
fleet's folder. Asked to end (by its proxy's `DRAIN`, or SIGTERM, SIGUSR1, SIGUSR2), it takes itself
back, lets the calls in flight end, and returns.

    submit(serve_instance, InstanceSpec(fleet=folder, name="0", serve=spec), resources=..., ...)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import submitit
from aiohttp import ClientSession
from pydantic import Field, StringConstraints

from ccai_core.config import Config
from ccai_core.errors import FleetError
from infra.cluster import Word
from infra.endpoint import Endpoint, deregister, key_id, read_key, register
from infra.engine_process import end_engine, start_engine, tail
from infra.engines import ServeSpec, engine
from infra.job_leaving import Asked, goes_on_later
from infra.ports import free_port, listen, machine_name, url_of
from infra.proxy import Proxy
from infra.readiness import is_healthy, not_ready

logger = logging.getLogger(__name__)

InstanceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

_END_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_READY_POLL_S = 0.5
_HEALTH_POLL_S = 2.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


class InstanceSpec(Config):
    """All that an instance needs to know; it is the argument of its job, so nothing secret."""

    fleet: Path = Field(description="Folder of the fleet: key, endpoints/, instances/.")
    name: InstanceName = Field(description="Name within the fleet; it names files.")
    serve: ServeSpec = Field(description="Which model on which engine.")
    address: Word = Field(
        "loopback", description="Where it listens: loopback, hostname, or an interface's name."
    )
    ready_seconds: float = Field(
        1800.0, gt=0, description="Longest wait from the engine's start to its first token."
    )
    max_restarts: int = Field(
        3, ge=0, description="Times an engine that crashed or fell silent is started again."
    )
    silent_seconds: float = Field(
        120.0, gt=0, description="An engine whose /health fails this long is started again."
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="Longest wait for calls in flight when asked to end."
    )

    @property
    def log(self) -> Path:
        """The engine's log."""
        return self.fleet / "instances" / f"{self.name}.log"


def serve_instance(spec: InstanceSpec) -> str:
    """Serve until asked to end; return a sentence about what was served.

    Runs in the main thread of its job. From a signal to the return it takes `drain_seconds` and
    some ten seconds for the engine to end; give the job that long (`unwind_seconds`).

    Raises:
        FleetError: the engine did not become ready in time, crashed too often, or cannot start.
        Asked: its place was taken or its time is up, and Slurm starts it again.
    """
    signals: list[int] = []
    served = asyncio.run(_serve(spec, signals))
    if signals and goes_on_later(signals[0]):
        raise Asked(signals[0])
    return served


async def _serve(spec: InstanceSpec, signals: list[int]) -> str:
    asked_to_end = asyncio.Event()
    with _ending(asked_to_end, signals):
        instance = _Instance(spec, asked_to_end)
        try:
            await instance.start()
            await instance.supervise()
            return await instance.drain()
        finally:
            await instance.stop()


@contextlib.contextmanager
def _ending(asked: asyncio.Event, signals: list[int]) -> Iterator[None]:
    """Set `asked` at the signals that end a job, instead of what its process would do."""
    loop = asyncio.get_running_loop()

    def hear(number: int) -> None:
        signals.append(number)
        asked.set()

    before = {each: signal.getsignal(each) for each in _END_SIGNALS}
    for each in _END_SIGNALS:
        loop.add_signal_handler(each, hear, each)
    try:
        yield
    finally:
        for each in _END_SIGNALS:
            loop.remove_signal_handler(each)
            # Having ended as asked, a repeated signal must not make a failure of it.
            signal.signal(each, signal.SIG_IGN if asked.is_set() else before[each])


class _Instance:
    """The proxy, the engine of the moment, and the endpoint that is registered for it."""

    def __init__(self, spec: InstanceSpec, asked_to_end: asyncio.Event) -> None:
        self.spec = spec
        self._asked = asked_to_end
        self._key = read_key(spec.fleet)
        self._proxy = Proxy(self._key, on_drain=asked_to_end.set)
        # The engine's key is another one than the fleet's: whoever gets hold of it has no more
        # than what this machine's loopback offers anyway.
        self._inner_key = secrets.token_urlsafe(32)
        self._session = ClientSession()
        self._process: asyncio.subprocess.Process | None = None
        self._endpoint: Endpoint | None = None
        self._url = ""
        self._engine_url = ""
        self._ready_until = 0.0
        self._why_not = "it has not answered"

    async def start(self) -> None:
        """Bind the public port and answer on it (503, until an engine is ready)."""
        server = listen(self.spec.address)
        self._url = url_of(server)
        await self._proxy.start(server)
        self._expect_ready()

    async def supervise(self) -> None:
        """Keep an engine running until asked to end.

        Raises:
            FleetError: it was not ready in time, or ended once more than `max_restarts`.
        """
        ended = ""
        for start in range(self.spec.max_restarts + 1):
            if start:
                pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (start - 1))
                logger.warning("%s; it is started again in %g s.", ended, pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), pause)
            if self._asked.is_set():
                return
            problem = await self._run_engine()
            if problem is None:
                return
            ended = f"Instance {self.spec.name}: {problem}"
        raise self._failure(f"{ended}. It was started {start + 1} times; that is enough.")

    async def drain(self) -> str:
        """Take the endpoint back, let the calls in flight end, and say what was served."""
        self._leave()
        whole = await self._proxy.drain(self.spec.drain_seconds)
        counts = self._proxy.counts
        cut = "" if whole else f" {counts.in_flight} were cut off after the drain's time."
        return f"Asked to end. Served {counts.requests} requests, {counts.errors} failed.{cut}"

    async def stop(self) -> None:
        """Leave nothing running and nothing registered, however far we came."""
        try:
            self._leave()
        finally:
            try:
                await self._end_engine()
            finally:
                await self._proxy.stop()
                await self._session.close()

    async def _run_engine(self) -> str | None:
        """Run one engine; return why it had to end, None when we are asked to."""
        await self._start_engine()
        left = self._ready_until - asyncio.get_running_loop().time()
        what = await self._race(self._poll_until_ready(), max(0.0, left))
        if what == "late":
            raise self._failure(
                f"Instance {self.spec.name} was not ready after {self.spec.ready_seconds:g} s: "
                f"{self._why_not}."
            )
        if what == "done":
            self._enter()
            what = await self._race(self._poll_until_silent(), None)
            self._expect_ready()
        if what == "asked":
            return None
        code = self._process.returncode if self._process else None
        self._leave()
        await self._end_engine()
        if what == "ended":
            return f"its engine ended (exit code {code})"
        return f"its engine's GET /health has failed for {self.spec.silent_seconds:g} s"

    async def _start_engine(self) -> None:
        serve, port = self.spec.serve, free_port()
        adapter = engine(serve.engine)
        environment = {**os.environ, **adapter.environment(serve, self._inner_key)}
        self._engine_url = f"http://127.0.0.1:{port}"
        self._process = await start_engine(adapter.command(serve, port), environment, self.spec.log)

    async def _race(self, work: Coroutine[None, None, None], seconds: float | None) -> str:
        """Return what came first: `asked`, `ended`, `done` (the work), or `late`."""
        assert self._process is not None  # noqa: S101 - started just before
        tasks: dict[str, asyncio.Task[object]] = {
            "asked": asyncio.create_task(self._asked.wait()),
            "ended": asyncio.create_task(self._process.wait()),
            "done": asyncio.create_task(work),
        }
        try:
            done, _ = await asyncio.wait(
                tasks.values(), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()  # An error in the work is an error here.
            return next((name for name, task in tasks.items() if task in done), "late")
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _poll_until_ready(self) -> None:
        while why_not := await not_ready(
            self._session, self._engine_url, self._inner_key, self.spec.serve
        ):
            self._why_not = why_not
            await asyncio.sleep(_READY_POLL_S)

    async def _poll_until_silent(self) -> None:
        clock = asyncio.get_running_loop()
        heard = clock.time()
        while clock.time() - heard < self.spec.silent_seconds:
            await asyncio.sleep(min(_HEALTH_POLL_S, self.spec.silent_seconds))
            if await is_healthy(self._session, self._engine_url):
                heard = clock.time()

    def _enter(self) -> None:
        """Let calls in: open the proxy, then tell the fleet."""
        serve = self.spec.serve
        self._proxy.forward_to(self._engine_url, self._inner_key)
        self._endpoint = Endpoint(
            instance=self.spec.name,
            url=self._url,
            model=serve.served_name,
            revision=serve.revision or "",
            engine=serve.engine,
            max_parallel=serve.max_parallel,
            host=machine_name(),
            pid=os.getpid(),
            job_id=_job_id(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            key_id=key_id(self._key),
        )
        register(self.spec.fleet, self._endpoint)
        logger.info("Instance %s is ready at %s.", self.spec.name, self._url)

    def _leave(self) -> None:
        """Tell the fleet that we are gone."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            deregister(self.spec.fleet, endpoint)

    async def _end_engine(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._proxy.forward_to(None)
            await end_engine(process)

    def _expect_ready(self) -> None:
        self._ready_until = asyncio.get_running_loop().time() + self.spec.ready_seconds

    def _failure(self, message: str) -> FleetError:
        log = self.spec.log
        return FleetError(f"{message} The end of {log}:\n{tail(log)}")


def _job_id() -> str:
    """Return the id under which the driver knows this job; run by hand, there is none."""
    try:
        return str(submitit.JobEnvironment().job_id)
    except RuntimeError:
        return str(os.getpid())
