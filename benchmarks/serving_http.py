"""A model behind `mlflow models serve`, and how long its answers take over HTTP."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_WARM_UP = 10
_SECONDS_TO_START = 120


@contextmanager
def serve(model: str, folder: Path, threads: int, tracking_uri: str = "") -> Iterator[int]:
    """Serve a model (a folder or `models:/name@alias`) until the block ends; yields the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks for uvicorn there
    named = {"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {}
    environment = {**os.environ, **named, "PATH": path, "OMP_NUM_THREADS": str(threads)}
    arguments = ["models", "serve", "-m", model, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        command = [sys.executable, "-m", "mlflow", *arguments]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            except (OSError, urllib.error.HTTPError):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit((folder / "server.log").read_text()) from None
                time.sleep(0.3)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def time_requests(port: int, batches: list[list[list[object]]], requests: int) -> dict[str, float]:
    """Send batches of histories in turn over one connection; the answers' median and 99th percentile in ms."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    bodies = [json.dumps({"dataframe_records": [{"history": h} for h in b], "params": {"k": 10}}) for b in batches]
    times = []
    for number in range(_WARM_UP + requests):
        begin = time.perf_counter()
        connection.request("POST", "/invocations", bodies[number % len(bodies)], {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        times.append(1000 * (time.perf_counter() - begin))
        predictions = json.loads(text).get("predictions", [])
        if answer.status != 200 or len(predictions) != len(batches[number % len(batches)]):
            raise SystemExit(f"{answer.status}: {text[:300]!r}")
    measured = np.array(times[_WARM_UP:])
    return {"median_ms": float(np.median(measured)), "p99_ms": float(np.quantile(measured, 0.99))}
