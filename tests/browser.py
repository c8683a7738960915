"""A real headless Chromium, driven over its DevTools protocol: what a page logs, what it drew, how it looks.

`python -m tests.browser ADDRESS out.png [WIDTH HEIGHT]` takes a screenshot, e.g. those of the README.
"""

import base64
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """Return the browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. Use as a context manager."""

    def __init__(self, executable: str) -> None:
        import websocket

        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={self._profile.name}", "--disable-dev-shm-usage"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([executable, *options, "about:blank"], **quiet)
        port = self._port(Path(self._profile.name) / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            tab = next(target for target in json.load(answer) if target["type"] == "page")
        self._socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60, suppress_origin=True)
        self._numbers = itertools.count(1)
        self.problems: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; what the page says meanwhile is kept."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._listen(message)

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Set the screen's size in CSS pixels, light or dark, and whether it is a phone's."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Load a page and wait until it is complete."""
        self.problems, self.requests = [], []
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; it must be plain data."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.2)

    def screenshot(self, path: Path) -> None:
        """Write what the screen shows as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _port(self, file: Path) -> str:
        deadline = time.monotonic() + 60
        while not (file.exists() and file.read_text().strip()):
            assert self._process.poll() is None, "chromium ended at its start"
            assert time.monotonic() < deadline, "chromium does not open its port"
            time.sleep(0.1)
        return file.read_text().split()[0]

    def _listen(self, message: dict[str, Any]) -> None:
        method, found = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(found["exceptionDetails"].get("exception", found))[:500])
        elif method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console.{found['type']}: {json.dumps(found['args'])[:500]}")
        elif method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{found['entry']['source']}: {found['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])


if __name__ == "__main__":
    address, target, width, height = (*sys.argv[1:3], *(sys.argv[3:5] or ("1200", "1700")))
    if "://" not in address:
        address = Path(address).resolve().as_uri()
    executable = find_chromium()
    assert executable, f"none of {', '.join(NAMES)} is installed"
    with Browser(executable) as browser:
        browser.look(int(width), int(height))
        browser.open(address)
        time.sleep(5)
        browser.screenshot(Path(target))
