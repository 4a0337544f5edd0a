"""A real Chromium by chromedriver's own protocol: pages opened at any width, looked at, pictured.

with Chromium(folder) as browser:
    browser.open(path, width=400)
    assert browser.console() == []
    browser.picture(Path("report-400.png"), height=1200)

python -m tests.webdriver report.html 400 1200 report-400.png
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
_START_S = 60


class Chromium:
    """One headless browser with a profile of its own, for as long as it is entered."""

    def __init__(self, folder: Path) -> None:
        self._profile = folder / "profile"

    def __enter__(self) -> Chromium:
        assert DRIVER is not None, "chromedriver is not installed"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._driver = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._url = f"http://127.0.0.1:{port}"
        try:
            self._wait()
            flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                     f"--user-data-dir={self._profile}"]  # fmt: skip
            wanted = {
                "goog:chromeOptions": {"binary": CHROMIUM, "args": flags},
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            session = self._send("/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.kill()
            raise
        self._url += f"/session/{session['sessionId']}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._send("", None, "DELETE")
        finally:
            self._driver.terminate()
            self._driver.wait(20)

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Open a file in a viewport of this size; the window itself cannot be so narrow."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self._send("/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """Return what a function body returns, run in the page; its policy does not hold for it."""
        return self._send("/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """Return what the console has said since this was last asked, errors and all."""
        return [entry["message"] for entry in self._send("/se/log", {"type": "browser"})]

    def picture(self, path: Path, height: int) -> None:
        """Save the top of the page as PNG."""
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._devtools("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _devtools(self, command: str, **parameters: Any) -> Any:
        return self._send("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _wait(self) -> None:
        until = time.monotonic() + _START_S
        while True:
            try:
                self._send("/status", None, "GET")
            except urllib.error.URLError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return

    def _send(self, path: str, body: Any, method: str = "POST") -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            self._url + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, Chromium(Path(name)) as browser:
        browser.open(Path(sys.argv[1]), int(sys.argv[2]))
        browser.picture(Path(sys.argv[4]), int(sys.argv[3]))
