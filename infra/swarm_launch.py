"""Run the body of an llm-swarm template as an instance's engine.

An instance starts its engine with a port of 127.0.0.1 to listen on. A template's server chooses its
own address and writes it to a file. This program stands between them: it runs the template, reads
the file, and passes every connection on. It ends when the template does.

    template-program serve MODEL --port=41234      # written by infra.swarm_template.install
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

HOSTS = "{{slurm_hosts_path}}"
_POLL_S = 0.1
_PIECE = 1 << 16


def main() -> None:
    """Run `sys.argv[1]`, the filled template, for the engine command in the words after it."""
    # What follows the `finally` below must follow a polite end as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    script, words = Path(sys.argv[1]), sys.argv[2:]
    folder = Path(tempfile.mkdtemp(prefix="template-"))
    try:
        sys.exit(asyncio.run(_run(script, folder, _port(words))))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def step_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the template's own `srun` gets what its job has.

    The instance runs in a step already; a second one would wait for the first to end, take none of
    the variables that the template sets, and have one core.
    """
    environment = dict(given)
    if "SLURM_JOB_ID" in given:
        environment |= {
            "SLURM_OVERLAP": "1", "SLURM_EXPORT_ENV": "ALL", "SLURM_MEM_PER_NODE": "0",
            "SLURM_CPU_BIND": "none", "SLURM_NTASKS": "1", "SLURM_KILL_BAD_EXIT": "1",
        }  # fmt: skip
        if "SLURM_CPUS_PER_TASK" in given:
            environment["SRUN_CPUS_PER_TASK"] = given["SLURM_CPUS_PER_TASK"]
    return environment


async def _run(script: Path, folder: Path, port: int) -> int:
    hosts, filled = folder / "hosts", folder / script.name
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", str(hosts)):
        raise SystemExit(f"{folder}: set TMPDIR to a folder with a plain name.")
    filled.write_text(script.read_text(encoding="utf-8").replace(HOSTS, str(hosts)))
    process = await asyncio.create_subprocess_exec(
        *_interpreter(filled), str(filled), env=step_environment(os.environ)
    )
    ended = asyncio.create_task(process.wait())
    forwarding = asyncio.create_task(_forward(hosts, port))
    await asyncio.wait([ended, forwarding], return_when=asyncio.FIRST_COMPLETED)
    if forwarding.done():
        forwarding.result()
    forwarding.cancel()
    code = await ended
    sys.stderr.write(f"The template {script} has ended (exit code {code}).\n")
    return code if code >= 0 else 128 - code


async def _forward(hosts: Path, port: int) -> None:
    host, target = await _address(hosts)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner, outer = await asyncio.open_connection(host, target)
        except OSError:
            writer.close()  # The server is not up yet, or not any more.
            return
        await asyncio.gather(_copy(reader, outer), _copy(inner, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", port)
    await server.serve_forever()


async def _address(hosts: Path) -> tuple[str, int]:
    """Wait until the template has written where its server answers."""
    while True:
        text = hosts.read_text(encoding="utf-8") if hosts.exists() else ""
        if text.endswith("\n"):
            said = text.split()[-1] if text.split() else ""
            url = urlsplit(said)
            if url.scheme != "http" or not url.hostname or not url.port:
                raise SystemExit(f"The template wrote {said!r}; http://host:port was expected.")
            return url.hostname, url.port
        await asyncio.sleep(_POLL_S)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # A side that hangs up ends both: half an answer must not look like a whole one.
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()


def _interpreter(script: Path) -> list[str]:
    with script.open(encoding="utf-8") as file:
        return shlex.split(file.readline().removeprefix("#!"))


def _port(words: Sequence[str]) -> int:
    return next(int(word.partition("=")[2]) for word in words if word.startswith("--port="))
