"""`make mlflow-ui` for real: the server, the address, the browser."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import unquote

import pytest

from glintru_model.tracking import close_pipeline_run, open_child, open_pipeline_run

ROOT = Path(__file__).parents[2]
SCREENS = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui")
    pipeline = open_pipeline_run(f"sqlite:///{folder / 'mlflow.db'}", "e", "", "run", {}, {})
    for model in ("glintru", "sasrec"):
        open_child(pipeline, model, {"kind": "model", "model": model})
    close_pipeline_run(pipeline, "FINISHED")
    return folder


def start(runs_dir, port, **screens):
    environment = {name: value for name, value in os.environ.items() if name not in SCREENS}
    command = [sys.executable, "-m", "pipelines.mlflow_ui", "--runs-dir", str(runs_dir), "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**environment, **screens}, **pipes)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_comparison_is_opened_in_the_browser_once_the_server_answers(runs_dir, tmp_path):
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    status = f"{sys.executable} -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).status)'"
    browser.write_text(f'#!/bin/sh\n{{ echo "$1"; {status} "$1"; }} > {opened}\n')
    browser.chmod(0o755)
    port = free_port()
    ui = start(runs_dir, port, BROWSER=f"{browser} %s")
    try:
        deadline = time.monotonic() + 120
        while not (opened.exists() and opened.read_text().endswith("200\n")):
            assert ui.poll() is None
            assert time.monotonic() < deadline, opened.read_text() if opened.exists() else "no browser was started"
            time.sleep(0.2)
        address, _ = opened.read_text().splitlines()
        said = [ui.stdout.readline(), ui.stdout.readline()]
        assert said == [
            f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)\n",
            f"the last run's models side by side: {address}\n",
        ]
        assert unquote(address).startswith(f'http://127.0.0.1:{port}/#/compare-runs?runs=["')
    finally:
        ui.send_signal(signal.SIGTERM)
        code = ui.wait(30)
    assert code == 130
    with pytest.raises(OSError, match="refused"):  # the server ended with it
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)


def test_no_browser_is_looked_for_without_a_screen(monkeypatch):
    from pipelines.mlflow_ui import _has_screen

    for name in SCREENS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not _has_screen()
    for name in SCREENS:
        with monkeypatch.context() as patched:
            patched.setenv(name, ":0")
            assert _has_screen()


@pytest.mark.parametrize("taken", [True, False])
def test_what_cannot_be_shown_is_one_line(runs_dir, tmp_path, capsys, taken):
    from pipelines.mlflow_ui import main

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code = main(["--runs-dir", str(runs_dir if taken else tmp_path), "--port", str(port)])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2
    assert (f"port {port} cannot be used" if taken else "no run has been tracked here yet") in line
