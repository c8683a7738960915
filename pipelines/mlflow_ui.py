"""`make mlflow-ui`: MLflow's UI over the local runs, opened at the comparison of the last run's two models."""

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from pathlib import Path

from glintru_model.command import run_command
from glintru_model.errors import InputError

_SECONDS_TO_START = 120


def main(arguments: list[str] | None = None) -> int:
    """Run MLflow's server until it is ended, show the comparison in a browser; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.mlflow_ui", description=__doc__)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args(arguments)
    return run_command(lambda: _serve(options.runs_dir, options.port))


def _serve(runs_dir: Path, port: int) -> int:
    uri = _local_database(runs_dir)
    _require_free(port)
    from glintru_model.tracking import comparison_path

    home = f"http://127.0.0.1:{port}"
    print(f"MLflow: {home} (Ctrl-C ends it)", flush=True)
    path = comparison_path(uri)
    if path:
        print(f"the last run's models side by side: {home}/{path}", flush=True)
    command = ["ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen([sys.executable, "-m", "mlflow", *command])
    try:
        if _has_screen() and _answers(f"{home}/health", server):
            webbrowser.open(f"{home}/{path}")
        return server.wait()
    finally:
        server.terminate()
        server.wait()


def _local_database(runs_dir: Path) -> str:
    database = runs_dir.resolve() / "mlflow.db"
    if not database.is_file():
        raise InputError(f"{database}: no run has been tracked here yet; `make pipeline-run` first, or RUNS=folder")
    return f"sqlite:///{database}"


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} cannot be used ({error}); choose another one: PORT=5001") from error


def _has_screen() -> bool:
    """Say whether a browser can be shown: without a screen, Python would start one in the terminal."""
    named = any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
    return named or sys.platform == "darwin"


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; false if it ends before, or takes too long."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=2).close()  # noqa: S310
        except OSError:
            time.sleep(0.3)
        else:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
