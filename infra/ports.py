"""Addresses and ports of servers: what a profile's `address` means here, and ports nobody uses.

with listen("loopback") as socket: ...
"""

from __future__ import annotations

import ipaddress
import os
import socket

import psutil

from ccai_core.errors import FleetError, did_you_mean

_BACKLOG = 1024


def listen(address: str) -> socket.socket:
    """Return a listening socket at a port that was free, on the address the profile names.

    Args:
        address: `loopback`, `hostname` (what this machine's name resolves to), or the name of a
            network interface.

    Raises:
        FleetError: no such interface, or nobody but this machine could reach the address.
    """
    found = _resolve(address)
    family = socket.AF_INET6 if ":" in found else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.bind((found, 0))
        server.listen(_BACKLOG)
    except OSError as error:
        server.close()
        raise FleetError(f"Cannot listen at {found} (address {address!r}): {error}.") from None
    return server


def url_of(server: socket.socket) -> str:
    """Return http://host:port of a listening socket."""
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def machine_name() -> str:
    """Return the name of this machine, as Slurm calls it if it runs here."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _resolve(address: str) -> str:
    if address == "loopback":
        return "127.0.0.1"
    if address == "hostname":
        return _of_hostname()
    return _of_interface(address)


def _of_hostname() -> str:
    name = socket.gethostname()
    try:
        found = socket.gethostbyname(name)
    except OSError as error:
        raise FleetError(
            f"This machine's name {name!r} does not resolve ({error}). Set `address` in the "
            "cluster profile to the name of the network interface to listen on."
        ) from None
    if ipaddress.ip_address(found).is_loopback:
        raise FleetError(
            f"This machine's name {name!r} resolves to {found}, which no other machine reaches. "
            "Set `address` in the cluster profile to the name of the network interface to listen "
            f"on; there are: {', '.join(sorted(psutil.net_if_addrs()))}."
        )
    return found


def _of_interface(name: str) -> str:
    interfaces = psutil.net_if_addrs()
    if name not in interfaces:
        raise FleetError(
            f"{machine_name()} has no network interface {name!r} (`address` in the cluster "
            f"profile).{did_you_mean(name, [*interfaces, 'loopback', 'hostname'])}"
        )
    addresses = {each.family: each.address for each in interfaces[name]}
    for family in (socket.AF_INET, socket.AF_INET6):
        # A link-local IPv6 address means nothing without its interface, so not elsewhere.
        if family in addresses and not addresses[family].startswith("fe80"):
            return addresses[family]
    raise FleetError(f"The network interface {name!r} of {machine_name()} has no address.")
