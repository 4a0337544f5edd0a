"""A throw-away PostgreSQL of this machine's own programs, as Debian's `postgresql` installs them.

with Postgres() as postgres:
    postgres.url("postgresql+asyncpg", "prefect")
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

_ROOT = Path(__file__).resolve().parent.parent
_USER = "ccai"
_START_S = 60.0


def programs() -> Path | None:
    """Return the folder of `initdb` and `postgres`; None: not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    # Debian keeps them off the path, by version.
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda at: int(at.parent.name))
    return versions[-1] if versions else None


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A cluster with the databases `prefect` and `mlflow`, as docker/compose.yaml has them."""

    def __init__(self) -> None:
        bin_folder = programs()
        if bin_folder is None:
            raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
        self._bin = bin_folder
        # Not below a folder that only root may enter: PostgreSQL refuses to be root.
        self._folder = Path(tempfile.mkdtemp(prefix="ccai-postgres-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self._folder, "postgres", "postgres")
        self.port = free_port()
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        words = self._folder / "password"
        words.write_text(self._password, encoding="ascii")
        if self._as:
            shutil.chown(words, "postgres", "postgres")
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", _USER, "--auth=scram-sha-256", f"--pwfile={words}")
        self.start()
        self._run("createdb", "prefect")
        script = str(_ROOT / "docker" / "postgres.sql")
        text = Path(script).read_text(encoding="utf-8")
        self._run("psql", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", text)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, scheme: str, database: str) -> str:
        """Return an address with the password in it, for a server's environment."""
        return f"{scheme}://{_USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self._folder / "data"), *words],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        until = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.log()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as `pg_ctl stop -m fast` does: connections are cut, nothing is lost."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def log(self) -> str:
        """Return what the server has written."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def query(self, database: str, sql: str) -> list[list[str]]:
        """Return the rows of a query, as text."""
        out = self._run("psql", "-d", database, "-At", "-F", "\t", "-c", sql)
        return [line.split("\t") for line in out.splitlines()]

    def _answers(self) -> bool:
        asked = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def _run(self, program: str, *words: str) -> str:
        at = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": _USER}
        at["PGPASSWORD"] = self._password
        done = subprocess.run(
            [str(self._bin / program), *words], env=os.environ | at,
            cwd=self._folder, capture_output=True, text=True, check=False, **self._as,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")
        return done.stdout
