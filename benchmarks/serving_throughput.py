"""How many tokens a second the server writes, by number of clients and by gathering window.

Each client asks, waits for the answer and asks again, over a real socket. A server is started for
each window; the first round of each measurement warms up and is not counted. Tokens for a second of
the server's processor time depend least on what else the machine does.

    python benchmarks/serving_throughput.py --clients 16 32 --gather-ms 0 2 10 50
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil

_START_S = 180
_TEXTS = (
    "A friend has forgotten my birthday. How should I tell her that I am hurt?",
    "Explain in two sentences why the sky is blue.",
    "My neighbour's dog barks every night. Write a short, kind note to him.",
    "What should I think about before I lend money to a colleague?",
)


@contextlib.contextmanager
def server(model: str, batch_size: int, gather_ms: float) -> Iterator[tuple[str, int]]:
    """Run a server; yield its address and process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ccai_core.serve", f"--model={model}", f"--port={port}"]
    command += [f"--batch-size={batch_size}", f"--gather-ms={gather_ms}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own words
    try:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def wait_ready(url: str) -> None:
    """Return when the model is loaded."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"{url} was not ready within {_START_S} s.")


async def measure(url: str, pid: int, clients: int, rounds: int, tokens: int) -> list[float]:
    """Return tokens a second, and a second of processor time, and prompts a batch."""

    async def ask(client: httpx.AsyncClient, number: int) -> int:
        body = {
            "messages": [{"role": "user", "content": _TEXTS[number % len(_TEXTS)]}],
            "max_tokens": tokens,
            "temperature": 0.7,
            "seed": number,
        }
        answer = await client.post(f"{url}/v1/chat/completions", json=body)
        answer.raise_for_status()
        return int(answer.json()["usage"]["completion_tokens"])

    async def loop(client: httpx.AsyncClient, number: int, rounds: int) -> int:
        return sum([await ask(client, number + 1000 * turn) for turn in range(rounds)])

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:  # noqa: S113 - a batch may take long
        await asyncio.gather(*(loop(client, 500 + number, 1) for number in range(clients)))
        before = counts(url, pid)
        made = await asyncio.gather(*(loop(client, n, rounds) for n in range(clients)))
    grown = [now - then for now, then in zip(counts(url, pid), before, strict=True)]
    seconds, processor, sequences, batches = grown
    return [sum(made) / seconds, sum(made) / processor, sequences / batches]


def counts(url: str, pid: int) -> list[float]:
    """Return the time, the server's processor time, and its sequences and batches so far."""
    lines = dict(line.rsplit(" ", 1) for line in httpx.get(f"{url}/metrics").text.splitlines())
    used = psutil.Process(pid).cpu_times()
    made = [float(lines[f"ccai_{name}_total"]) for name in ("sequences", "batches")]
    return [time.monotonic(), used.user + used.system, *made]


def main() -> None:
    """Measure every combination and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--gather-ms", type=float, nargs="+", default=[0, 2, 10, 50])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    chosen = parser.parse_args()
    print("| window, ms | clients | tokens/s | tokens/CPU s | prompts a batch |")
    print("|---|---|---|---|---|", flush=True)
    for window in chosen.gather_ms:
        with server(chosen.model, chosen.batch_size, window) as (url, pid):
            for clients in chosen.clients:
                made = asyncio.run(measure(url, pid, clients, chosen.rounds, chosen.tokens))
                print(
                    f"| {window:g} | {clients} | {made[0]:.0f} | {made[1]:.0f} | {made[2]:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
