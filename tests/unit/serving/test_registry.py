"""Registered models in a real MLflow registry on sqlite, loaded back as MLflow loads them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from glintru_model import cli
from glintru_model.config import RegistryConfig
from glintru_model.errors import DataError, InputError, TrackingError
from glintru_model.evaluation.ranking import rank_targets
from glintru_model.models.files import load_model
from glintru_model.models.scorer import ModelScorer
from glintru_model.serving import registry
from glintru_model.serving.alias_rule import Contest, Refusal
from glintru_model.serving.aliases import list_champions, promote, rollback
from glintru_model.serving.packaging import model_sha256
from glintru_model.serving.recommender import Recommender
from glintru_model.serving.registry import register
from glintru_model.tracking import child_run, connect, open_pipeline_run


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def client(uri):
    return connect(uri)


def no_rival(champion):
    raise AssertionError(f"there is no other champion, yet version {champion.version} was compared with")


FIRST = {"judge": no_rival, "config": RegistryConfig()}


@pytest.fixture
def add(uri, glintru_dir, request, client):
    """Register the model as of some pipeline run, under this test's own name; its judge believes the figures."""

    def add_version(run, validation, *, dataset="data-1", model_dir=glintru_dir):
        def judge(champion):
            assert Recommender.load(champion.model_dir).vocabulary.num_items == 30
            if champion.dataset_hash != dataset:
                return Refusal("another dataset")
            version = client.get_model_version(request.node.originalname, champion.version)
            before = float(version.tags["validation_ndcg_at_10"])
            difference = validation - before
            return Contest("ndcg_at_10", 50, validation, before, difference, difference - 0.01, difference + 0.01, 0.5)

        parent = open_pipeline_run(uri, "registry", "", f"{request.node.name}-{run}", {}, {})
        with child_run(parent, "train") as tracker:
            return register(
                model_dir,
                judge=judge,
                config=RegistryConfig(),
                tracking=tracker.ref,
                model_name=request.node.originalname,
                pipeline_run=f"{request.node.name}-{run}",
                dataset_hash=dataset,
                validation_metrics={"ndcg_at_10": validation},
                test_metrics={"ndcg_at_10": 0.05, "recall_at_10": 0.1},
                tags={"git_commit": "abc"},
            )

    return add_version


@pytest.fixture
def name(request):
    return request.node.originalname


def holder(client, name, alias):
    aliases = client.get_registered_model(name).aliases
    return str(aliases[alias]) if alias in aliases else None


def test_version_says_where_it_comes_from(client, add, name, glintru_dir):
    added = add("a", 0.25)
    version = client.get_model_version(name, added.version)
    expected = {
        "git_commit": "abc",
        "dataset_hash": "data-1",
        "pipeline_run": f"{name}-a",
        "model_sha256": model_sha256(glintru_dir),
        "validation_ndcg_at_10": "0.25",
        "test_ndcg_at_10": "0.05",
        "test_recall_at_10": "0.1",
        "decision": "champion",
    }
    assert {key: version.tags[key] for key in expected} == expected
    assert added.reason in version.description
    assert "Test ndcg_at_10 0.0500" in version.description
    logged = client.get_logged_model(version.tags["model_id"])
    assert logged.status == "READY"
    assert {metric.key: metric.value for metric in logged.metrics} == {
        "val/ndcg_at_10": 0.25,
        "test/ndcg_at_10": 0.05,
        "test/recall_at_10": 0.1,
    }
    assert [output.model_id for output in client.get_run(version.run_id).outputs.model_outputs] == [logged.model_id]


def test_registering_twice_changes_nothing(client, add, name):
    first = add("a", 0.2)
    before = client.get_model_version(name, first.version)
    better = add("b", 0.3)
    again = add("a", 0.2)
    assert again == first
    assert [str(v.version) for v in client.search_model_versions(f"name = '{name}'")] == ["2", "1"]
    assert holder(client, name, "champion") == better.version
    after = client.get_model_version(name, first.version)
    assert (after.tags, after.description) == (before.tags, before.description)


@pytest.mark.parametrize("broken_at", ["_create_version", "_give_alias"])
def test_attempt_that_died_on_the_way_is_completed(client, add, name, monkeypatch, broken_at):
    model = f"{name}"
    before = len(client.search_model_versions(f"name = '{model}'"))

    def die(*_):
        raise TrackingError("the server went away")

    with monkeypatch.context() as patched:
        patched.setattr(registry, broken_at, die)
        with pytest.raises(TrackingError, match="went away"):
            add("a", 0.2)
    assert before > 0 or holder_or_none(client, model) is None
    added = add("a", 0.2)
    assert len(client.search_model_versions(f"name = '{model}'")) == before + 1
    version = client.get_model_version(model, added.version)
    assert version.tags["decision"] == added.alias
    experiment = client.get_experiment_by_name("registry").experiment_id
    clause = f"name = '{model}' AND tags.pipeline_run = '{version.tags['pipeline_run']}'"
    assert len(client.search_logged_models([experiment], clause)) == 1


def holder_or_none(client, name):
    champions = list_champions(client.tracking_uri, [name])
    return champions[name]


def test_champion_is_replaced_only_by_a_better_one_on_the_same_data(client, add, name, uri):
    assert add("a", 0.20).alias == "champion"
    worse = add("b", 0.10)
    assert (worse.alias, holder(client, name, "champion"), holder(client, name, "challenger")) == (
        "challenger",
        "1",
        worse.version,
    )
    better = add("c", 0.30)
    assert (better.alias, holder(client, name, "champion")) == ("champion", better.version)
    elsewhere = add("d", 0.90, dataset="data-2")
    assert (elsewhere.alias, holder(client, name, "champion")) == ("challenger", better.version)
    assert "another dataset" in elsewhere.reason
    champions = list_champions(uri, [name, "never-registered"])
    assert champions["never-registered"] is None
    assert champions[name].version == better.version
    assert "0.3000 against 0.2000 of version 1" in champions[name].reason


def test_version_says_what_it_was_compared_with(client, add, name):
    add("a", 0.20)
    added = add("b", 0.25)
    version = client.get_model_version(name, added.version)
    expected = {
        "decision": "champion",
        "decision_rule": "paired_bootstrap on ndcg_at_10, margin 0",
        "compared_with": "1",
        "compared_users": "50",
    }
    assert {key: version.tags[key] for key in expected} == expected
    assert float(version.tags["validation_difference"]) == pytest.approx(0.05)
    assert float(version.tags["validation_low"]) == pytest.approx(0.04)
    assert "95 % interval 0.0400 to 0.0600" in version.description


def test_better_by_chance_is_a_challenger(client, add, name):
    add("a", 0.20)
    added = add("b", 0.205)
    assert (added.alias, holder(client, name, "champion")) == ("challenger", "1")
    assert "0.2050 against 0.2000" in added.reason


def test_champion_whose_files_are_gone_is_no_yardstick(client, add, name):
    add("a", 0.20)
    source = client.get_model_version(name, "1").source
    shutil.rmtree(source.removeprefix("file://"))
    added = add("b", 0.25)
    assert (added.alias, holder(client, name, "champion")) == ("challenger", "1")
    assert "no yardstick: its files cannot be used" in added.reason


def test_champion_with_corrupted_weights_is_no_yardstick(client, add, name):
    add("a", 0.20)
    source = Path(client.get_model_version(name, "1").source.removeprefix("file://"))
    (source / "artifacts/model/model.safetensors").write_bytes(b"no weights")
    added = add("b", 0.25)
    assert (added.alias, holder(client, name, "champion")) == ("challenger", "1")
    assert "not a safetensors file" in added.reason


def test_promote_and_roll_back_leave_a_trace(client, add, name, uri):
    for run, figure in (("a", 0.1), ("b", 0.2), ("c", 0.15)):
        add(run, figure)
    assert (holder(client, name, "champion"), holder(client, name, "challenger")) == ("2", "3")
    assert promote(uri, name, "3").version == "3"
    assert (holder(client, name, "champion"), holder(client, name, "challenger")) == ("3", None)
    assert "promoted_at" in client.get_model_version(name, "3").tags
    assert rollback(uri, name).version == "2"
    traced = client.get_model_version(name, "3").tags
    assert traced["rolled_back_to"] == "2"
    assert traced["rolled_back_at"] >= traced["promoted_at"]
    regained = client.get_model_version(name, "2").tags
    assert regained["champion_reason"] == "rolled back from version 3"
    assert rollback(uri, name).version == "1"
    with pytest.raises(InputError, match="version 1 is the first champion"):
        rollback(uri, name)


def test_versions_that_do_not_exist_are_named(client, add, name, uri):
    add("a", 0.1)
    add("b", 0.2)
    with pytest.raises(InputError, match=rf"'{name}' has no version '9', there are: 1, 2$"):
        promote(uri, name, "9")
    client.delete_model_version(name, "1")
    with pytest.raises(InputError, match=r"no version '1', there are: 2$"):
        rollback(uri, name)
    assert holder(client, name, "champion") == "2"
    with pytest.raises(InputError, match="'nobody' has no champion"):
        rollback(uri, "nobody")


def test_broken_weights_are_refused_before_anything_is_registered(add, name, uri, glintru_dir, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(glintru_dir, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(DataError, match="not a safetensors file"):
        add("a", 0.1, model_dir=broken)
    assert list_champions(uri, [name]) == {name: None}


def test_untracked_run_registers_nothing(glintru_dir):
    from glintru_model.tracking import RunRef

    kwargs = {
        **FIRST,
        "pipeline_run": "r",
        "dataset_hash": "d",
        "validation_metrics": {},
        "test_metrics": {},
        "tags": {},
    }
    added = register(glintru_dir, tracking=RunRef(), model_name="n", **kwargs)
    assert (added.version, added.alias) == ("", "")


def test_registry_that_is_not_reachable_is_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"^MLflow at http://127\.0\.0\.1:9: not reachable: [^\n]+$"):
        list_champions("http://127.0.0.1:9", ["x"])


def run_cli(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


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
        (("promote", "--name", "", "--version", "1"), "no registered model is named"),
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
        (f"models:/{name}@champion", "not a safetensors file"),
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


@pytest.fixture(scope="module")
def packed(uri, glintru_dir, sasrec_dir, client):
    """Both kinds of ids, registered once: the addresses of their artifacts."""
    paths = {}
    for name, directory in (("packed-int", glintru_dir), ("packed-text", sasrec_dir)):
        parent = open_pipeline_run(uri, "registry", "", name, {}, {})
        added = register(
            directory,
            tracking=parent,
            model_name=name,
            **FIRST,
            pipeline_run=name,
            dataset_hash="d",
            validation_metrics={"ndcg_at_10": 0.1},
            test_metrics={},
            tags={},
        )
        model_id = client.get_model_version(name, added.version).tags["model_id"]
        paths[name] = client.get_logged_model(model_id).artifact_location.removeprefix("file://")
    return paths


def test_package_stands_alone_and_holds_no_pickle(packed):
    root = Path(packed["packed-int"])
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert "artifacts/model/model.safetensors" in files
    assert "code/glintru_model/serving/recommender.py" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"))]
    requirements = (root / "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in requirements} >= {"torch", "numpy", "pyarrow", "safetensors", "mlflow"}
    assert all("==" in line and "+" not in line for line in requirements)


def test_loaded_model_ranks_as_the_model_on_disk(packed, glintru_dir, sasrec_dir):
    import mlflow
    import pandas as pd

    for name, directory, histories in (
        ("packed-int", glintru_dir, [[100, 101, 5], [], [129] * 20]),
        ("packed-text", sasrec_dir, [["B001", "B002"], ["?"], []]),
    ):
        model = mlflow.pyfunc.load_model(packed[name])
        exclude = histories[0][:1]
        params = {"k": 7, "filter_seen": False, "exclude": exclude}
        answer = model.predict(pd.DataFrame({"history": histories}), params=params)
        expected = Recommender.load(directory).recommend(histories, 7, filter_seen=False, exclude=exclude)
        assert answer.to_dict("records") == [vars(row) for row in expected]
        plain = model.predict([{"history": histories[0]}])
        assert plain.item_ids[0] == Recommender.load(directory).recommend(histories[:1])[0].item_ids


@pytest.mark.parametrize(
    ("rows", "params", "message"),
    [
        ({"history": [[100]]}, {"k": 31}, r"k 31, allowed: 1\.\.30"),
        ({"history": [[100]]}, {"k": -1}, r"k -1, allowed"),
        ({"history": [[100]]}, {"k": "many"}, "k"),
        ({"history": [[100]]}, {"exclude": ["x"]}, "exclude"),
        ({"history": [["B001"]]}, {}, "history"),
        ({"history": [None]}, {}, "history"),
        ({"items": [[100]]}, {}, "history"),
    ],
)
def test_bad_request_is_refused_by_the_loaded_model(packed, rows, params, message):
    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException

    model = mlflow.pyfunc.load_model(packed["packed-int"])
    with pytest.raises(MlflowException, match=message):
        model.predict(pd.DataFrame(rows), params=params)


LOAD_ALONE = """
import importlib.abc, json, sys
from importlib import metadata
from packaging.requirements import Requirement

allowed, todo = set(), ["torch", "numpy", "pyarrow", "mlflow", "safetensors"]  # the last: the weights' own format
while todo:
    name = todo.pop().lower().replace("_", "-")
    if name in allowed:
        continue
    allowed.add(name)
    try:
        wanted = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        continue
    todo += [r.name for r in map(Requirement, wanted) if r.marker is None or r.marker.evaluate({"extra": ""})]

class Blocker(importlib.abc.MetaPathFinder):
    owners = metadata.packages_distributions()
    def find_spec(self, name, path=None, target=None):
        found = {owner.lower().replace("_", "-") for owner in self.owners.get(name, [])}
        if "." not in name and name != "glintru_model" and found and not found & allowed:
            raise ModuleNotFoundError(f"blocked: {name} of {found}", name=name)

sys.meta_path.insert(0, Blocker())
for name in ("optuna", "kfp", "duckdb", "plotly", "boto3"):
    try:
        __import__(name)
    except ImportError as error:
        assert "blocked" in str(error)
    else:
        raise AssertionError(f"{name} is not blocked")
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
import glintru_model
answer = model.predict(pd.DataFrame({"history": [[100, 101]]}), params={"k": 3})
print(json.dumps([glintru_model.__file__, answer.item_ids[0]]))
"""


@pytest.mark.slow
def test_loads_from_its_own_source_with_torch_numpy_pyarrow_and_mlflow_alone(packed, glintru_dir, tmp_path):
    command = [sys.executable, "-c", LOAD_ALONE, packed["packed-int"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    source, item_ids = json.loads(done.stdout.splitlines()[-1])
    assert source.startswith(packed["packed-int"])
    assert item_ids == Recommender.load(glintru_dir).recommend([[100, 101]], 3)[0].item_ids


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


@pytest.fixture(scope="module")
def served(packed, uri, tmp_path_factory):
    arguments = ["models", "serve", "-m", "models:/packed-int@champion", "--env-manager", "local"]
    with server_process(arguments, tmp_path_factory.mktemp("serve"), "/ping", MLFLOW_TRACKING_URI=uri) as port:
        yield port


@pytest.mark.slow
def test_served_champion_answers_as_the_model_on_disk(served, glintru_dir):
    histories = [[100, 101, 5], [129] * 20, []]
    expected = Recommender.load(glintru_dir).recommend(histories, 4, exclude=[103])
    payload = {"dataframe_records": [{"history": h} for h in histories], "params": {"k": 4, "exclude": [103]}}
    status, answer = ask(served, payload)
    assert status == 200, answer
    assert [row["item_ids"] for row in answer["predictions"]] == [row.item_ids for row in expected]
    assert [row["ranked_by"] for row in answer["predictions"]] == ["model", "model", "popularity"]
    for row, wanted in zip(answer["predictions"], expected, strict=True):
        assert row["scores"] == pytest.approx(wanted.scores, rel=1e-5)
    status, answer = ask(served, {"dataframe_records": [{"history": [7, 8]}, {"history": [100, 101] * 50_000}]})
    assert status == 200, answer
    assert [row["num_unknown_items"] for row in answer["predictions"]] == [2, 0]
    assert [row["ranked_by"] for row in answer["predictions"]] == ["popularity", "model"]
    status, answer = ask(served, {"inputs": [{"history": [100]}]})
    assert status == 200, answer
    assert len(answer["predictions"][0]["item_ids"]) == 10


@pytest.mark.slow
@pytest.mark.parametrize("filter_seen", [True, False])
def test_served_champion_ranks_targets_as_the_evaluation_does(served, glintru_dir, dataset_of, filter_seen):
    rng = np.random.default_rng(0)
    dataset = dataset_of([(rng.integers(0, 30, size=rng.integers(3, 20)) + 1).tolist() for _ in range(60)], 30)
    cases = dataset.cases("test")
    model, _ = load_model(glintru_dir)
    ranks = rank_targets(ModelScorer(model), dataset, cases, filter_seen=filter_seen, batch_size=16).ranks
    histories = [dataset.item_ids[a:b] for a, b in zip(cases.history_starts, cases.history_ends, strict=True)]
    records = [{"history": (history + 99).tolist()} for history in histories]  # index i is item 99 + i
    status, answer = ask(served, {"dataframe_records": records, "params": {"k": 30, "filter_seen": filter_seen}})
    assert status == 200, answer
    for rank, target, row in zip(ranks, cases.targets, answer["predictions"], strict=True):
        listed = row["item_ids"]
        assert (listed.index(99 + target) + 1 if 99 + target in listed else 31) == rank
    assert len(set(ranks.tolist())) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"dataframe_records": [{"history": [100]}], "params": {"k": 31}}, "k 31, allowed: 1..30"),
        ({"dataframe_records": [{"history": [100]}], "params": {"k": -2}}, "k -2, allowed"),
        ({"dataframe_records": [{"history": ["B001"]}]}, "history"),
        ({"dataframe_records": [{"items": [100]}]}, "history"),
        ({"dataframe_records": [{"history": [100]}], "params": {"exclude": ["x"]}}, "exclude"),
    ],
)
def test_served_champion_refuses_bad_requests(served, payload, message):
    status, answer = ask(served, payload)
    assert status == 400
    assert message in json.dumps(answer)


@pytest.mark.slow
def test_server_that_keeps_the_artifacts_registers_as_well(glintru_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "server"
    folder.mkdir()
    store = ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "store")]
    with server_process(["server", *store, "--workers", "1"], folder, "/health") as port:
        address = f"http://127.0.0.1:{port}"
        arguments = {
            **FIRST,
            "pipeline_run": "r",
            "dataset_hash": "d",
            "test_metrics": {},
            "tags": {},
            "model_name": "glintru",
        }
        parent = open_pipeline_run(address, "served", "", "r", {}, {"a": 1})
        with child_run(parent, "glintru") as tracker:
            tracker.log_dict({"a": 1}, "a.json")
            arguments = {**arguments, "tracking": tracker.ref, "validation_metrics": {"ndcg_at_10": 0.1}}
            first, second = register(glintru_dir, **arguments), register(glintru_dir, **arguments)
        assert first == second
        assert (first.version, first.alias) == ("1", "champion")
        import mlflow

        model_id = connect(address).get_model_version("glintru", "1").tags["model_id"]
        location = connect(address).get_logged_model(model_id).artifact_location
        assert location.startswith("mlflow-artifacts:")
        mlflow.set_tracking_uri(address)
        try:
            model = mlflow.pyfunc.load_model("models:/glintru@champion")
        finally:
            mlflow.set_tracking_uri(None)
        answer = model.predict([{"history": [100, 101]}], params={"k": 3})
        assert answer.item_ids[0] == Recommender.load(glintru_dir).recommend([[100, 101]], 3)[0].item_ids
    assert [path.name for path in tmp_path.iterdir()] == ["server"]
