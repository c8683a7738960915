"""What is not submitted, and backends that cannot be used: one line each, with what to do."""

import socket
import threading

import pytest
import yaml


def test_a_backend_that_is_not_there(submit):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{unused.getsockname()[1]}"
        code, _, line = submit(host=host)
    assert code == 1
    assert line.startswith(f"error: {host}: Kubeflow Pipelines is not reachable")
    assert "check KFP_HOST" in line


def test_a_backend_that_takes_the_connection_and_says_nothing(submit, monkeypatch):
    monkeypatch.setattr("pipelines.backend.TIMEOUT_SECONDS", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, _, line = submit(host=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert code == 1
    assert "Kubeflow Pipelines is not reachable" in line
    assert "timed out" in line


def test_a_backend_that_falls_silent_when_a_run_is_created(backend, submit, monkeypatch):
    monkeypatch.setattr("pipelines.backend.TIMEOUT_SECONDS", (0.2, 0.2))
    answer, over = backend.answer, threading.Event()

    def hang(method, path, query, body):
        if path == "/apis/v2beta1/runs":
            over.wait(20)
        return answer(method, path, query, body)

    monkeypatch.setattr(backend, "answer", hang)
    code, _, line = submit()
    over.set()
    assert code == 1
    assert "timed out" in line


@pytest.mark.parametrize("host", ["localhost:8080", "kfp.example.com", "ftp://kfp.example.com", "http:// nowhere"])
def test_an_address_without_a_scheme_is_refused(submit, host):
    code, _, line = submit(host=host)
    assert code == 2
    assert line == f"error: KFP_HOST {host!r}, allowed: http://... or https://..."


@pytest.mark.parametrize("secret", ["marked\nsecret", "marked\u2019secret"])
@pytest.mark.parametrize("variable", ["KFP_TOKEN", "KFP_COOKIE"])
def test_a_credential_that_no_header_can_hold_is_refused_and_never_shown(
    backend, submit, monkeypatch, variable, secret
):
    monkeypatch.setenv(variable, secret)
    code, out, line = submit()
    assert code == 2
    assert "holds a line break" in line
    assert "marked" not in out + line
    assert not backend.requests


def test_a_credential_that_is_no_text(backend, submit, tmp_path):
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00marked")
    code, _, line = submit("--token-file", tmp_path / "token")
    assert code == 2
    assert line.endswith("token: cannot read the credential: it is no text")


@pytest.mark.parametrize("host", ["https://bob:marked@kfp.example.com", "kfp://bob:marked@kfp.example.com"])
def test_an_address_of_the_backend_with_a_password_is_refused_and_never_shown(submit, host):
    code, out, line = submit(host=host)
    assert code == 2
    assert "KFP_HOST" in line
    assert "marked" not in out + line


def test_a_link_with_a_password_is_refused_and_never_shown(backend, submit):
    code, out, line = submit("--mlflow-url", "https://bob:marked@mlflow.example.com")
    assert code == 2
    assert "MLFLOW_URL" in line
    assert "marked" not in out + line
    assert not backend.requests


def test_an_address_that_is_not_the_apis(backend, submit):
    backend.refusal, backend.refuse_health = (404, "404 page not found"), True
    code, _, line = submit()
    assert code == 1
    assert "this is not the API of Kubeflow Pipelines" in line


@pytest.mark.parametrize("at_once", [True, False])
def test_an_expired_token_is_told_and_never_shown(backend, submit, monkeypatch, at_once):
    monkeypatch.setenv("KFP_TOKEN", "marked-token")
    backend.refusal, backend.refuse_health = (401, {"message": "token marked-token has expired"}), at_once
    code, out, line = submit()
    assert code == 2
    assert "credentials are not accepted (401)" in line
    assert "KFP_TOKEN" in line
    assert "marked-token" not in out + line


def test_a_token_that_expires_while_waiting_leaves_the_run_alone(backend, submit, monkeypatch):
    answer = backend.answer

    def expire(method, path, query, body):
        return (401, {"message": "expired"}) if path.endswith("/runs/run-1") else answer(method, path, query, body)

    monkeypatch.setattr(backend, "answer", expire)
    code, _, line = submit()
    assert code == 2
    assert "the run goes on" in line
    assert not backend.bodies("POST", "/apis/v2beta1/runs/run-1:terminate")


def test_a_login_page_instead_of_the_api(backend, submit):
    backend.refusal, backend.refuse_health = (200, "<html>Sign in</html>"), True
    code, _, line = submit()
    assert code == 1
    assert "this is not the API of Kubeflow Pipelines" in line


@pytest.mark.parametrize(
    ("refusal", "part"),
    [
        ((404, {"message": 'namespaces "team" not found'}), "namespace 'team' is missing"),
        ((403, {"message": "User is not authorized"}), "not allowed (403) in namespace 'team'"),
    ],
)
def test_a_namespace_that_is_missing_or_not_ones_own(backend, submit, refusal, part):
    backend.multi_user, backend.refusal = True, refusal
    code, _, line = submit("--namespace", "team")
    assert code == 2
    assert part in line
    assert "KFP_NAMESPACE" in line


@pytest.mark.parametrize("health", [{"multi_user": True}, {"apiServerReady": True, "apiServerMultiUser": True}])
def test_a_multi_user_backend_asks_for_the_namespace_and_gets_it(backend, submit, health):
    backend.health = health
    code, _, line = submit()
    assert code == 2
    assert "set KFP_NAMESPACE" in line
    code, _, _ = submit("--namespace", "team")
    assert code == 0


@pytest.mark.parametrize("schedule", [(), ("--schedule", "0 3 * * *")])
@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("log.csv", "'log.csv': a cluster cannot read it; give s3://... or https://..."),
        ("lgo.csv", "'lgo.csv': no such file and no such dataset"),
        ("ml-1n", "did you mean 'ml-1m'?"),
        ("s3:/bucket/log.csv", "no such file"),
        ("gs://bucket/log.csv", "give s3://... or https://..."),
    ],
)
def test_a_log_that_a_cluster_cannot_read_is_not_submitted(backend, submit, tmp_path, schedule, source, part):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n")
    code, _, line = submit("--data", source, *schedule)
    assert code == 2
    assert part in line
    assert not backend.requests


@pytest.mark.parametrize(
    "setting",
    [
        "ingest.append_to",
        "sequences.keep_indices_of",
        "models.glintru.training.warm_start_from",
        "models.sasrec.training.warm_start_from",
    ],
)
def test_a_folder_of_this_machine_is_not_submitted(backend, submit, tmp_path, setting):
    settings = str(tmp_path)
    for part in reversed(setting.split(".")):
        settings = {part: settings}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(settings))
    code, _, line = submit("--config", config)
    assert code == 2
    assert f"{setting} '{tmp_path}': a folder of this machine, which a cluster cannot read" in line
    assert not backend.requests


def test_an_address_with_credentials_is_not_submitted(backend, submit):
    code, out, line = submit("--data", "https://u:marked@example.com/log.csv")
    assert code == 2
    assert "holds credentials" in line
    assert "marked" not in out + line
    assert not backend.requests
