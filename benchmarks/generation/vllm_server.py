"""A real vLLM server for benchmarks: started here or already running; and what it says it did.

What a run came to is read from the server's own counters, so it is measured alike for every client:
calls, tokens, what was found in the prefix cache, and the seconds from the first call to the last
answer, without a client's own start and end.

    with vllm_server(chosen, model) as url, Watch(url) as watch:
        ...
    print(watch.seconds, watch.tokens_out)

To start one by itself, for several benchmarks with --url:

    python benchmarks/generation/vllm_server.py --python vllm-env/bin/python --port 8123
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ccai_core.models import ModelRef, resolve_model  # noqa: E402
from infra.fleet_metrics import metric_sums  # noqa: E402

NAME, _START_S, _END_S, _LOOK_S = "benchmark", 300, 30, 0.5
_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which server is measured."""
    parser.add_argument("--python", required=True, help="Python of an environment with vLLM")
    parser.add_argument("--url", help="a vLLM that vllm_server.py started already")
    parser.add_argument("--model", default="embedded", help="name or folder of the model")
    parser.add_argument("--places", type=int, default=64, help="calls that are computed at a time")
    parser.add_argument("--cache-tokens", type=int, default=65536, help="room of the KV cache")
    parser.add_argument("--cores", default="0", help="cores that the engine computes on")
    parser.add_argument("--dtype", default="float32", help="CPUs without AVX-512 crawl in bfloat16")
    parser.add_argument("--json", type=Path, help="write the numbers there")


def server_command(chosen: argparse.Namespace, model: ModelRef, port: int) -> list[str]:
    """Return the words that start vLLM on this machine's CPU."""
    block = 32  # of tokens; what vLLM likes best on a CPU
    return [
        "env", "-u", "OMP_NUM_THREADS", "-u", "PYTHONPATH", "VLLM_SERVER_DEV_MODE=1",
        f"VLLM_CPU_OMP_THREADS_BIND={chosen.cores}",
        "VLLM_CPU_KVCACHE_SPACE=2", "VLLM_LOGGING_LEVEL=WARNING",
        chosen.python, "-m", "vllm.entrypoints.openai.api_server", f"--model={model.path}",
        f"--served-model-name={NAME}", f"--port={port}", "--host=127.0.0.1",
        f"--max-num-seqs={chosen.places}", "--max-model-len=4096", "--enable-prefix-caching",
        f"--block-size={block}", f"--num-gpu-blocks-override={chosen.cache_tokens // block}",
        f"--dtype={chosen.dtype}", "--enforce-eager",
        # A prompt read in parts by a call with a seed ends vLLM 0.32 on a CPU ("CPU Generator does
        # not use offset").
        "--no-enable-chunked-prefill", "--max-num-batched-tokens=4096",
    ]  # fmt: skip


@contextlib.contextmanager
def vllm_server(chosen: argparse.Namespace, model: ModelRef) -> Iterator[str]:
    """Yield the address of the server that `add_arguments` chose, started if need be."""
    if chosen.url:
        yield chosen.url.rstrip("/")
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = server_command(chosen, model, port)
    with tempfile.NamedTemporaryFile(prefix="vllm-", suffix=".log", delete=False) as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_S
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"vLLM did not start; it said: {log.name}")
            time.sleep(1)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)  # seen: it stays when its engine has gone
            server.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health").close()  # noqa: S310 - our own server
    except OSError:
        return False
    return True


def counters(url: str) -> dict[str, float]:
    """Return the server's numbers."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:  # noqa: S310 - our own server
        return metric_sums(answer.read().decode())


def forget_prefixes(url: str) -> None:
    """Empty the prefix cache: no run is to live on what another has read."""
    request = urllib.request.Request(f"{url}/reset_prefix_cache", method="POST")  # noqa: S310
    try:
        urllib.request.urlopen(request).close()  # noqa: S310 - our own server
    except urllib.error.HTTPError as error:
        raise SystemExit(
            f"{url} does not empty its prefix cache ({error}). Start it with vllm_server.py."
        ) from None


def _engines(port: int) -> list[psutil.Process]:
    """Return the processes that compute for the server at this port, if it runs here."""
    for connection in psutil.net_connections("tcp4"):
        here = connection.laddr and connection.laddr.port == port
        if here and connection.status == psutil.CONN_LISTEN and connection.pid:
            return psutil.Process(connection.pid).children(recursive=True)
    return []


class Watch:
    """What a server did while the block ran, by its own counters."""

    seconds: float = 0.0
    """From the first call to the last answer."""
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cached: float = 0.0
    """Part of the prompts' tokens that was found in the prefix cache."""
    in_flight: float = 0.0
    """Calls that were computed at a time, on average."""
    preempted: int = 0
    """Times that a call was put back because the cache was full."""
    engine_seconds: float = 0.0
    """CPU time of the engine itself, if it runs here: what other work on the machine changes less
    than the clock. 0 if it is elsewhere."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._busy: list[tuple[float, float]] = []
        self._engines = _engines(urlsplit(url).port or 80)

    def __enter__(self) -> Self:
        forget_prefixes(self._url)
        self._before = counters(self._url)
        self._engine_before = self._engine_time()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        if kind is None:
            self._conclude(counters(self._url))

    def _engine_time(self) -> float:
        return sum(sum(each.cpu_times()[:2]) for each in self._engines)

    def _look(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            now = counters(self._url)
            if now.get(_RUNNING, 0) + now.get(_WAITING, 0):
                self._busy.append((time.monotonic(), now[_RUNNING]))

    def _conclude(self, after: dict[str, float]) -> None:
        def more(name: str) -> float:
            return after.get(name, 0.0) - self._before.get(name, 0.0)

        self.seconds = _LOOK_S
        if self._busy:
            self.seconds += self._busy[-1][0] - self._busy[0][0]
            self.in_flight = sum(running for _, running in self._busy) / len(self._busy)
        self.engine_seconds = self._engine_time() - self._engine_before
        self.calls = int(more("vllm:request_success_total"))
        self.tokens_in = int(more("vllm:prompt_tokens_total"))
        self.tokens_out = int(more("vllm:generation_tokens_total"))
        self.preempted = int(more("vllm:num_preemptions_total"))
        asked = more("vllm:prefix_cache_queries_total")
        self.cached = more("vllm:prefix_cache_hits_total") / asked if asked else 0.0


def per_engine_second(count: int, watch: Watch) -> float | None:
    """Return so many for a second of the engine's CPU time; None: it is not known."""
    return round(count / watch.engine_seconds, 3) if watch.engine_seconds else None


def show(row: dict[str, object]) -> None:
    """Print one line of numbers."""
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def write(path: Path | None, found: dict[str, object]) -> None:
    """Write the numbers, if a file was asked for."""
    if path:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--port", type=int, default=8123)
    chosen = parser.parse_args()
    words = server_command(chosen, resolve_model(chosen.model), chosen.port)
    os.execvp(words[0], words)  # noqa: S606 - our own words


if __name__ == "__main__":
    main()
