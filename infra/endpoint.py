"""An endpoint: one server of a fleet, registered by its instance in a file of its own.

fleets/<fleet>/key                        the fleet's API key, readable by its owner only
fleets/<fleet>/endpoints/<instance>.json  written whole by the instance, removed when it drains

    for endpoint in registered(folder): ...
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import tempfile
from pathlib import Path

from pydantic import Field

from ccai_core.config import Config, parse_config
from ccai_core.errors import ConfigError, FleetError
from ccai_core.files import write_whole
from infra.cluster import EngineName

logger = logging.getLogger(__name__)


class Endpoint(Config):
    """Where one instance answers, and which process it is."""

    instance: str = Field(description="Name of the instance within its fleet.")
    url: str = Field(description="http://host:port, without a path.")
    model: str = Field(description="The name under which the model is served.")
    revision: str = Field("", description="Which weights: a hub commit or a content hash.")
    engine: EngineName = Field(description="What API it speaks.")
    max_parallel: int = Field(64, ge=1, description="Requests it works on at once.")
    host: str = Field(description="Name of the machine.")
    pid: int = Field(description="The instance's process there.")
    job_id: str = Field(description="The job it runs in.")
    started: str = Field(description="UTC time of registration, ISO 8601.")
    key_id: str = Field(description="First characters of the key's hash: which key it wants.")


def registered(fleet: Path) -> list[Endpoint]:
    """Return what is registered in the folder of a fleet now, by instance.

    A file that cannot be read yet or any more is left out and said: others may be fine.
    """
    found = []
    for file in sorted((fleet / "endpoints").glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found.append(parse_config(Endpoint, content, str(file)))
        except FileNotFoundError:
            continue  # Its instance took it back between the listing and the reading.
        except (ValueError, TypeError, ConfigError) as error:
            logger.warning("%s is not an endpoint (%s).", file, error)
    return found


def register(fleet: Path, endpoint: Endpoint) -> None:
    """Let the fleet's driver find this endpoint."""
    folder = fleet / "endpoints"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{endpoint.instance}.json", endpoint.model_dump_json(indent=2) + "\n")


def deregister(fleet: Path, endpoint: Endpoint) -> None:
    """Take an endpoint back, unless a newer start of the same instance has replaced it."""
    now = [each for each in registered(fleet) if each.instance == endpoint.instance]
    if now == [endpoint]:
        (fleet / "endpoints" / f"{endpoint.instance}.json").unlink(missing_ok=True)


def make_key(fleet: Path) -> str:
    """Return the fleet's API key, made on the first call; the file is its owner's alone (0600)."""
    fleet.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=fleet)  # mkstemp makes it 0600
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole, and fails where another start was first: then that key counts.
        with contextlib.suppress(FileExistsError):
            os.link(draft, fleet / "key")
    finally:
        draft.unlink()
    return read_key(fleet)


def read_key(fleet: Path) -> str:
    """Return the fleet's API key.

    Raises:
        FleetError: there is none, or others may read it.
    """
    path = fleet / "key"
    try:
        if path.stat().st_mode & 0o077:
            raise FleetError(f"{path}: others may read this key. Run `chmod 600 {path}`.")
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise FleetError(f"{path}: there is no key; the fleet was not started here.") from None


def key_id(key: str) -> str:
    """Return what tells keys apart without telling them."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]
