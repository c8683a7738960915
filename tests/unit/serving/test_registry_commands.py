"""The registry from the command line, and when it goes away."""

from pathlib import Path

import pytest

from glintru_model.errors import TrackingError
from glintru_model.serving.recommender import Recommender
from tests.unit.serving.registering import holder, holder_or_none, run_cli


def test_aliases_are_moved_from_the_command_line(client, add, name, uri, monkeypatch, capsys):
    add("a", 0.1)
    add("b", 0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, said = run_cli(capsys, "promote", "--name", name, "--version", "1")
    assert (code, holder(client, name, "champion")) == (0, "1")
    assert "version 1 is champion, promoted by hand" in said.out
    code, said = run_cli(capsys, "rollback", "--name", name)
    assert (code, holder(client, name, "champion")) == (0, "2")
    assert "rolled back from version 1" in said.out
    for arguments, message in (
        (("promote", "--name", name, "--version", "8"), "has no version '8', there are: 1, 2"),
        (
            ("promote", "--name", "glintru", "--version", "1"),
            f"no registered model 'glintru' with versions, there are: {name}",
        ),
        (("rollback", "--name", "nobody"), "'nobody' has no champion"),
    ):
        code, said = run_cli(capsys, *arguments)
        assert (code, len(said.err.splitlines())) == (2, 1)
        assert message in said.err
    assert holder(client, name, "champion") == "2"


def test_recommending_from_the_registry(client, add, name, uri, monkeypatch, capsys, tmp_path, glintru_dir):
    import pyarrow as pa
    import pyarrow.parquet as pq

    add("a", 0.1)
    add("b", 0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    pq.write_table(pa.table({"user_id": [1], "history": [[100, 101]]}), tmp_path / "in.parquet")
    files = ("--input", tmp_path / "in.parquet", "--output", tmp_path / "out.parquet")
    expected = Recommender.load(glintru_dir).recommend([[100, 101]])[0].item_ids
    for address in (f"models:/{name}@champion", f"models:/{name}/1"):
        assert run_cli(capsys, "recommend", "--trained", address, *files)[0] == 0
        assert pq.read_table(tmp_path / "out.parquet").column("item_ids").to_pylist() == [expected]
        (tmp_path / "out.parquet").unlink()
    client.delete_model_version(name, "1")
    source = Path(client.get_model_version(name, "2").source.removeprefix("file://"))
    (source / "artifacts/model/model.safetensors").write_bytes(b"no weights")
    for address, message in (
        (f"models:/{name}/1", "there is no such registered version"),
        (f"models:/{name}@nobody", "there is no such registered version"),
        ("models:/nothing@champion", "there is no such registered version"),
        ("models:/nothing", "allowed: models:/<name>@<alias>"),
        (f"models:/{name}@champion", "its files have changed since it was registered"),
    ):
        code, said = run_cli(capsys, "recommend", "--trained", address, *files)
        assert (code, len(said.err.splitlines())) == (2, 1), said.err
        assert message in said.err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, said = run_cli(capsys, "recommend", "--trained", f"models:/{name}@champion", *files)
    assert (code, len(said.err.splitlines())) == (1, 1)
    assert "MLflow at http://127.0.0.1:9: not reachable" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_server_that_goes_away_leaves_nothing_half_registered(client, add, name, monkeypatch):
    """Whatever call of the registry fails first: no alias points at a version that is not whole."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def away(*_, **__):
        raise MlflowException("API request failed") from ConnectionRefusedError(111, "Connection refused")

    for call in ("create_logged_model", "log_model_artifacts", "finalize_logged_model", "create_model_version"):
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, call, away)
            with pytest.raises(TrackingError, match="not reachable: Connection refused"):
                add("a", 0.1)
        assert holder_or_none(client, name) is None
        assert client.search_model_versions(f"name = '{name}'") == []
    assert add("a", 0.1).alias == "champion"
    assert len(client.search_model_versions(f"name = '{name}'")) == 1
