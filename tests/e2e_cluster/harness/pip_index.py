"""pip's configuration of this machine for use inside a build: folders that pip reads here are served over loopback."""

import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SETTINGS = ("index-url", "extra-index-url", "find-links")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _configured() -> dict[str, list[str]]:
    """Read `pip config list`; the environment's value of a setting lies over a file's."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    for line in done.splitlines():
        name, _, value = line.partition("=")
        setting = name.rpartition(".")[2]
        if setting in _SETTINGS:
            text = value.strip("'\"")
            found.setdefault(setting, []).extend(text.replace("\\n", " ").split())
    return found


def _local_folder(location: str) -> Path | None:
    if location.startswith("file://"):
        return Path(unquote(urlsplit(location).path))
    return Path(location) if location.startswith("/") else None


@contextmanager
def pip_configuration(work: Path) -> Iterator[Path]:
    """Write a pip.conf that works inside a build with the host's network, for the length of a block."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def reachable(location: str) -> str:
        folder = _local_folder(location)
        if folder is None:
            return location
        # an index links to ../../files: serve the folder above the index
        root = folder.parent
        handler = functools.partial(_Quiet, directory=str(root))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/{folder.name}/"

    try:
        settings = {name: [reachable(value) for value in values] for name, values in _configured().items()}
        lines = ["[global]", "trusted-host = 127.0.0.1", "timeout = 120"]
        lines += [f"{name} = {' '.join(dict.fromkeys(values))}" for name, values in settings.items()]
        path = work / "pip.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield path
    finally:
        for server in servers:
            server.shutdown()


if __name__ == "__main__":
    print(json.dumps(_configured(), indent=2))
