"""The part of the hub's HTTP API that an upload speaks to, over a real socket.

It keeps what arrives: small files from the commit itself, large ones by the LFS transfer. What a
commit names and nobody sent is refused, as the hub refuses it.

    with hub(token="hf_test") as server:
        server.url, server.files, server.private
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_LARGE = 10_000


class Hub:
    """What the stand-in knows."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repository, self.private = "", None
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""
        self._stored: dict[str, bytes] = {}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return status and JSON of the answer to one request."""
        self.asked.append(f"{method} {path}")
        if path.startswith("/store/"):
            oid = path.removeprefix("/store/")
            if hashlib.sha256(body).hexdigest() != oid:
                return 400, {"error": "the content is not what its hash says"}
            self._stored[oid] = body
            return 200, {}
        if path == "/api/repos/create":
            values = json.loads(body)
            self.repository = f"{values['organization']}/{values['name']}"
            self.private = bool(values.get("private")) or values.get("visibility") == "private"
            return 200, {"url": f"{self.url}/{self.repository}"}
        if path.startswith("/api/models/") and method == "GET":
            return 200, {"id": self.repository, "private": self.private, "siblings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return 200, {"files": [self._mode(each) for each in files]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return 200, {"transfer": "basic", "objects": [self._upload(each) for each in objects]}
        if "/commit/" in path:
            return self._commit(body)
        return 200, {}

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["size"] > _LARGE else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.url}/store/{wanted['oid']}", "header": {}}
        return {**wanted, "actions": {"upload": upload}}

    def _commit(self, body: bytes) -> tuple[int, Any]:
        for line in body.splitlines():
            each = json.loads(line)
            value = each["value"]
            if each["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif each["key"] == "lfsFile":
                if value["oid"] not in self._stored:
                    return 400, {"error": f"{value['path']} was never sent"}
                self.files[value["path"]] = self._stored[value["oid"]]
        oid = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        return 200, {"commitUrl": f"{self.url}/{self.repository}/commit/{oid}", "commitOid": oid}


@contextmanager
def hub(token: str) -> Iterator[Hub]:
    """Serve on a free port of this machine."""
    known = Hub(token)

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self._body()
            path = self.path.partition("?")[0]
            let_in = path.startswith("/store/") or (
                self.headers.get("Authorization") == f"Bearer {token}"
            )
            refused = 401, {"error": "Invalid credentials"}
            status, values = known.answer(self.command, path, body) if let_in else refused
            text = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        # The names are those that http.server looks for.
        do_GET = do_POST = do_PUT = _handle  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
