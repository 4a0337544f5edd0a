"""Serve a chat model over HTTP as OpenAI does: the platform's `transformers` engine.

CCAI_API_KEY=... python -m ccai_core.serve --model embedded --port 8000
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn

from ccai_core.errors import CCAIError, ConfigError
from ccai_core.serve_config import KEY_VARIABLE, ServeConfig, parse_arguments

log = logging.getLogger("ccai_core.serve")

# Longer than clients and proxies keep idle connections, so that they close them first.
_KEEP_ALIVE_S = 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until asked to end; return the exit code."""
    signal.signal(signal.SIGTERM, _end)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("ccai_core").setLevel(logging.INFO)
    try:
        serve(parse_arguments(arguments), take_key())
    except CCAIError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def take_key() -> str | None:
    """Take the API key out of the environment, where child processes would see it.

    Raises:
        ConfigError: it is empty, or cannot stand in a header.
    """
    key = os.environ.pop(KEY_VARIABLE, None)
    if key is None:
        return None
    if not key.isascii() or not key.isprintable() or key != key.strip() or not key:
        raise ConfigError(
            f"{KEY_VARIABLE}: is set, but must be printable ASCII without spaces around it. Unset "
            "it to serve without a key."
        )
    return key


def serve(config: ServeConfig, key: str | None) -> None:
    """Load and serve the model; returns after SIGTERM and the last call in flight.

    Raises:
        ModelError: the model cannot be found or loaded.
        ConfigError: the address cannot be listened on.
    """
    # Only here: --help and a wrong option must not wait for torch.
    from ccai_core.models import resolve_model
    from ccai_core.serve_app import Service

    ref = resolve_model(config.model, fallback=False)
    listener = _listen(config.host, config.port)
    host, port = listener.getsockname()[:2]
    if key is None and not _only_here(host):
        log.warning("Serving on %s without a key: set %s to keep others out.", host, KEY_VARIABLE)

    def end() -> None:
        server.should_exit = True

    service = Service(config, ref, key, on_failure=end)
    server = uvicorn.Server(
        uvicorn.Config(
            service.app,
            log_config=None,
            access_log=False,
            ws="none",
            lifespan="on",
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
    )
    shown = f"[{host}]" if ":" in host else host
    log.info("Serving %s on http://%s:%d; loading it.", service.name, shown, port)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    if service.failure:
        raise service.failure


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror or error}). Take "
            "another port, or 0 for any free one."
        ) from None


def _only_here(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def _end(number: int, frame: FrameType | None) -> None:
    # The server has its own handler while it runs, and raises the signal again when it is done.
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
