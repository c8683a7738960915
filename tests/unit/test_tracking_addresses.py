"""Addresses of an MLflow: refused, not answering, shown without what is secret in them."""

import os
import socket
import time
from pathlib import Path

import pytest

from glintru_model.errors import ConfigError, TrackingError
from glintru_model.tracking import open_pipeline_run
from glintru_model.tracking.client import artifact_uri, connect, without_secrets


@pytest.mark.parametrize(
    "address",
    ["http://me:secret@host:5000", "https://secret@host", "postgresql://u:secret@h/db", "http://h/?token=secret"],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address):
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        connect(address)
    assert "secret" not in str(caught.value)


def test_folder_as_tracking_address_is_refused():
    with pytest.raises(ConfigError, match=r"'\./mlruns': expected sqlite"):
        connect("./mlruns")


def test_server_that_is_not_there_is_one_line_in_time(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(TrackingError, match=rf"^MLflow at http://127.0.0.1:{port}: not reachable: [^\n]+$"):
        open_pipeline_run(f"http://127.0.0.1:{port}", "x", "", "r", {}, {})
    assert time.monotonic() - start < 10


def test_connecting_shortens_mlflows_patience_but_not_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) < 7
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


def test_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is not a database, but it is long enough to be looked at" * 30)
    with pytest.raises(TrackingError, match=r"^MLflow at sqlite:///[^\n]*mlflow\.db: [^\n]+$"):
        connect(f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_artifact_locations_become_uris(tmp_path):
    assert artifact_uri("sqlite:///x.db", "s3://bucket/a") == "s3://bucket/a"
    assert artifact_uri("sqlite:///x.db", str(tmp_path)) == tmp_path.as_uri()
    assert artifact_uri(f"sqlite:///{tmp_path}/m.db", "") == (tmp_path / "artifacts").as_uri()
    assert artifact_uri("http://server", "") is None
    with pytest.raises(ConfigError, match="artifact location"):
        open_pipeline_run("sqlite:///never.db", "x", "s3://key:secret@bucket/a", "r", {}, {})
    assert not Path("never.db").exists()


def test_without_secrets_keeps_the_rest():
    assert without_secrets('{"a": "s3://k:v@b/c?x=1", "b": 2}') == '{"a": "s3://b/c", "b": 2}'
    assert without_secrets("why? because a@b") == "why? because a@b"
