"""A Kubeflow Pipelines backend and the cluster's API behind it, small, on loopback, in their own words."""

import json
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from pipelines.run import main

RUN_ID, EXPERIMENT_ID = "run-1", "experiment-1"


@dataclass
class FakeBackend:
    """What the backend answers, and what it was asked.

    `states` are the run's states, one per poll, the last one for ever. `refusal` is (status, body) for everything
    but the health check where `refuse_health` is not set.
    """

    states: list[str] = field(default_factory=lambda: ["SUCCEEDED"])
    tasks: list[dict[str, Any]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    pods_in: str = "kubeflow"
    pods_refused: bool = False
    log: str = ""
    multi_user: bool = False
    health: dict[str, Any] = field(default_factory=dict)  # in place of the API server's own answer
    refusal: tuple[int, Any] | None = None
    refuse_health: bool = False
    schedules: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    host: str = ""

    def bodies(self, method: str, path: str) -> list[Any]:
        """Return the bodies that were sent to a path."""
        return [body for verb, asked, _, body in self.requests if verb == method and asked == path]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """Answer one request."""
        own = {"multi_user": self.multi_user}
        if path.endswith("/healthz"):
            return self.refusal if self.refusal and self.refuse_health else (200, self.health or own)
        if path.startswith("/api/v1/namespaces/"):
            if self.pods_refused:
                return 403, {"kind": "Status", "code": 403, "reason": "Forbidden"}
            return 200, self._cluster(path, query)
        if self.refusal:
            return self.refusal
        experiment = {"experiment_id": EXPERIMENT_ID, "display_name": "quickstart"}
        if path == "/apis/v2beta1/experiments":
            return 200, {"experiments": [experiment]} if method == "GET" else experiment
        if path == "/apis/v2beta1/runs":
            return 200, {"run_id": RUN_ID, "experiment_id": EXPERIMENT_ID, "state": "PENDING"}
        if path == f"/apis/v2beta1/runs/{RUN_ID}":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return 200, {"run_id": RUN_ID, "state": state, "run_details": {"task_details": self.tasks}}
        if path == "/apis/v2beta1/recurringruns" and method == "POST":
            return 200, {"recurring_run_id": "schedule-2", "display_name": body["display_name"]}
        if path == "/apis/v2beta1/recurringruns":
            return 200, {"recurringRuns": self.schedules}
        return 200, {}

    def _cluster(self, path: str, query: dict[str, list[str]]) -> Any:
        if path.endswith("/log"):
            return self.log
        assert query["labelSelector"] == [f"pipeline/runid={RUN_ID}"]
        items = self.pods if f"/namespaces/{self.pods_in}/" in path else []
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def write_kubeconfig(path: Path, server: str) -> Path:
    """Write a kubeconfig that leads to a server without credentials."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def backend(tmp_path, monkeypatch) -> Iterator[FakeBackend]:
    """Serve a `FakeBackend`; the kubeconfig in the environment leads to it as well."""
    fake = FakeBackend()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.requests.append((self.command, parts.path, headers, body))
            status, answer = fake.answer(self.command, parts.path, parse_qs(parts.query), body)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(status)
            is_json = not isinstance(answer, str)
            self.send_header("Content-Type", "application/json" if is_json else "text/html")
            with suppress(BrokenPipeError):  # who asked has lost patience
                self.end_headers()
                self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fake.host = f"http://127.0.0.1:{server.server_port}"
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", fake.host)
    for name in ("KFP_HOST", "KFP_TOKEN", "KFP_COOKIE", "KFP_NAMESPACE", "KFP_SERVICE_ACCOUNT_TOKEN", "MLFLOW_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.setattr("pipelines.submit.POLL_SECONDS", 0.02)
    monkeypatch.setattr("pipelines.submit.HOPELESS_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    yield fake
    server.shutdown()


@pytest.fixture
def pod():
    """Make a task's pod as the cluster's API shows it."""

    def make(step: str, *, waiting=None, conditions=(), phase="Pending", limits=None, selector=None) -> dict[str, Any]:
        status = {"name": "main", "image": "glintru:none", "imageID": "", "ready": False, "restartCount": 0}
        state = {"state": {"waiting": waiting}} if waiting else {"state": {}}
        return {
            "metadata": {"name": re.sub(r"\W", "-", step), "labels": {"glintru.dev/step": step}},
            "spec": {"containers": [{"name": "main", "resources": {"limits": limits or {}}}], "nodeSelector": selector},
            "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": [{**status, **state}]},
        }

    return make


@pytest.fixture
def submit(backend, capsys):
    """Run the command; return its exit code, what it printed, and the one line of its failure."""

    def run(*options, host=None):
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always", FutureWarning)
            warnings.simplefilter("always", UserWarning)
            code = main(["--runner", "kfp", "--profile", "kind", "--host", host or backend.host, *map(str, options)])
        assert [str(warning.message) for warning in shown] == []  # a person would see them before the one line
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == (0 if code == 0 else 1), captured.err
        assert "Traceback" not in captured.out
        return code, captured.out, lines[0] if lines else ""

    return run
