"""A server of its own that answers chat calls: OpenAI's route, HTTP/1.1, kept connections.

At once, or after about a delay that the call decides. Written on asyncio's transports, so that the
client is what a benchmark measures. It prints its port, counts the calls it gets, and says at
GET /counts how many there were and how many of them were different.

    python benchmarks/generation/instant_server.py --delay-ms 100
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.generation.standin import is_cut, text_of


class Counts:
    """The calls that came, by the hash of what they ask."""

    def __init__(self) -> None:
        self.calls = 0
        self.different: set[bytes] = set()


class Answering(asyncio.Protocol):
    """One connection: reads requests with a Content-Length, answers each in turn."""

    def __init__(self, counts: Counts, delay: float) -> None:
        self._counts, self._delay = counts, delay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing read."""
        self._transport = transport
        self._data = bytearray()

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._data += data
        while (split := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:split]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < split + 4 + length:
                return
            body = bytes(self._data[split + 4 : split + 4 + length])
            del self._data[: split + 4 + length]
            self._answer(body, is_call=head.startswith(b"post"))

    def _answer(self, body: bytes, *, is_call: bool) -> None:
        if not is_call:
            counts = {"calls": self._counts.calls, "different": len(self._counts.different)}
            self._transport.write(_response(counts))
            return
        digest = hashlib.sha256(body).digest()
        self._counts.calls += 1
        self._counts.different.add(digest[:12])
        if not self._delay:
            self._transport.write(_response(_said(digest)))
            return
        seconds = self._delay * (0.5 + digest[23] / 255)
        asyncio.get_running_loop().call_later(seconds, self._say, _response(_said(digest)))

    def _say(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)


def _said(digest: bytes) -> dict[str, object]:
    return {
        "id": "1", "object": "chat.completion", "created": 1, "model": "stand-in",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text_of(digest)},
            "finish_reason": "length" if is_cut(digest) else "stop",
        }],
        "usage": {
            "prompt_tokens": 200 + digest[20], "completion_tokens": 60 + digest[21] // 2,
            "total_tokens": 400,
        },
    }  # fmt: skip


def _response(value: object) -> bytes:
    content = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(content),
        content,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delay-ms", type=float, default=0.0, help="how long an answer takes")
    delay, counts = parser.parse_args().delay_ms / 1000, Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(counts, delay), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
