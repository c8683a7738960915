"""What the tests of the registry and of its versions share."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from glintru_model import cli
from glintru_model.config import RegistryConfig
from glintru_model.serving.aliases import list_champions


def no_rival(champion):
    raise AssertionError(f"there is no other champion, yet version {champion.version} was compared with")


FIRST = {"judge": no_rival, "config": RegistryConfig()}


def holder(client, name, alias):
    aliases = client.get_registered_model(name).aliases
    return str(aliases[alias]) if alias in aliases else None


def holder_or_none(client, name):
    champions = list_champions(client.tracking_uri, [name])
    return champions[name]


def run_cli(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


def ask(port, payload):
    body = json.dumps(payload).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@contextmanager
def server_process(arguments, folder, ready_path, **variables):
    """Run an MLflow server until the block ends; yields its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks for uvicorn there
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path, **variables}
    command = [sys.executable, "-m", "mlflow", *arguments, "--port", str(port), "--host", "127.0.0.1"]
    with (folder / "log").open("w") as log:
        options = {"cwd": folder, "stdout": log, "stderr": log, "env": environment, "start_new_session": True}
        server = subprocess.Popen(command, **options)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{ready_path}", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.5)
        yield port
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
