"""Runs in a real MLflow on sqlite: what a pipeline leaves behind, also when steps are retried or fail."""

import json
import sqlite3
import time
from urllib.parse import unquote

import pytest

from glintru_model.errors import TrackingError
from glintru_model.tracking import (
    MlflowTracker,
    NullTracker,
    RunRef,
    child_run,
    close_pipeline_run,
    comparison_path,
    log_settings,
    open_child,
    open_pipeline_run,
)
from glintru_model.tracking.client import connect

MANIFEST = {"dataset_hash": "a" * 64, "num_users": 12, "num_items": 5, "source": "https://x.org/log.csv?token=hush"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tracking") / "not" / "there yet"


@pytest.fixture(scope="module")
def uri(home):
    return f"sqlite:///{home / 'mlflow.db'}"


@pytest.fixture(scope="module")
def client(uri):
    return connect(uri)


@pytest.fixture
def pipeline(uri, request):
    return open_pipeline_run(uri, "tests", "", request.node.name, {"git_commit": "abc-dirty"}, {"a": {"b": 1}})


def children(client, parent):
    return client.search_runs([parent.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.run_id}'")


def test_pipeline_run_is_opened_once_and_carries_settings_and_environment(uri, client, pipeline):
    again = open_pipeline_run(uri, "tests", "", pipeline_name(client, pipeline), {}, {"a": {"b": 1}})
    run = client.get_run(pipeline.run_id)
    assert again == pipeline
    assert run.data.params == {"a.b": "1"}
    assert run.data.tags["version.torch"].startswith("2.")
    assert (run.data.tags["git_commit"], run.data.tags["mlflow.source.git.commit"]) == ("abc-dirty", "abc")
    assert run.info.status == "RUNNING"


def pipeline_name(client, ref):
    return client.get_run(ref.run_id).info.run_name


def test_artifacts_lie_beside_the_database_and_nothing_in_the_working_directory(
    home, client, pipeline, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    report = home.parent / "report.html"
    report.write_text("<p>")
    folder = home.parent / "plots"
    folder.mkdir(exist_ok=True)
    (folder / "one.txt").write_text("1")
    with child_run(pipeline, "evaluate") as tracker:
        tracker.log_artifact(report, "reports")
        tracker.log_artifact(folder, "plots")
        tracker.log_dict({"k": 1}, "extra/k.json")
    root = home / "artifacts" / tracker.ref.run_id / "artifacts"
    assert sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()) == [
        "extra/k.json",
        "plots/one.txt",
        "reports/report.html",
    ]
    assert list(tmp_path.iterdir()) == []


def test_child_run_records_and_finishes(client, pipeline):
    with child_run(pipeline, "train glintru", {"model": "glintru"}) as tracker:
        tracker.log_params({"architecture": {"dropout_rate": 0.2}, "seed": 0})
        for epoch in (1, 2):
            tracker.log_metrics({"val/ndcg_at_10": 0.1 * epoch, "train_loss": 1 / epoch}, epoch)
        tracker.log_dataset(MANIFEST, context="training")
        tracker.set_tags({"stopped": "patience"})
    run = client.get_run(tracker.ref.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"architecture.dropout_rate": "0.2", "seed": "0"}
    assert run.data.tags["stopped"] == "patience"
    assert run.data.tags["model"] == "glintru"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "val/ndcg_at_10")] == [
        (1, 0.1),
        (2, 0.2),
    ]
    (dataset,) = [entry.dataset for entry in run.inputs.dataset_inputs]
    assert dataset.digest == "a" * 36
    assert json.loads(dataset.source) == {"url": "https://x.org/log.csv"}
    assert json.loads(dataset.profile) == {"num_users": 12, "num_items": 5}


def test_more_params_than_one_call_takes_all_arrive(client, pipeline):
    values = {f"p{i}": i for i in range(230)}
    MlflowTracker(pipeline).log_params(values)
    assert len(client.get_run(pipeline.run_id).data.params) == 231


def test_failed_step_is_failed_with_its_error_and_a_retry_continues_the_same_run(client, pipeline):
    def first_attempt():
        with child_run(pipeline, "train") as tracker:
            tracker.log_metrics({"loss": 2.0}, 1)
            raise ValueError("boom at http://me:pw@host/x\nsecond line")

    with pytest.raises(ValueError, match="boom"):
        first_attempt()
    (failed,) = children(client, pipeline)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["error"] == "ValueError: boom at http://host/x"
    with child_run(pipeline, "train") as second:
        assert client.get_run(second.ref.run_id).info.status == "RUNNING"
        second.log_metrics({"loss": 1.0}, 2)
    assert second.ref.run_id == failed.info.run_id
    assert len(children(client, pipeline)) == 1
    assert client.get_run(failed.info.run_id).info.status == "FINISHED"
    assert [m.value for m in client.get_metric_history(failed.info.run_id, "loss")] == [2.0, 1.0]


class PrunedError(Exception):
    pass


@pytest.mark.parametrize("error", [PrunedError, KeyboardInterrupt, SystemExit])
def test_step_stopped_on_purpose_is_killed(client, pipeline, error):
    with pytest.raises(error), child_run(pipeline, "trial", killed_by=(PrunedError,)) as tracker:
        raise error
    run = client.get_run(tracker.ref.run_id)
    assert run.info.status == "KILLED"
    assert "error" not in run.data.tags


def test_same_name_below_another_parent_is_another_run(client, pipeline):
    tune = open_child(pipeline, "tune glintru")
    other = open_child(pipeline, "it's tune sasrec")
    with child_run(tune, "trial 0") as one, child_run(other, "trial 0") as two:
        pass
    assert one.ref.run_id != two.ref.run_id
    assert open_child(pipeline, "it's tune sasrec") == other
    assert client.get_run(tune.run_id).info.status == "RUNNING"


def test_closing_the_pipeline_ends_what_was_left_open_below_it(client, pipeline):
    tune = open_child(pipeline, "tune")
    trial = open_child(tune, "trial 7")
    with child_run(pipeline, "train") as done:
        pass
    close_pipeline_run(pipeline, "FAILED")
    statuses = [client.get_run(ref.run_id).info.status for ref in (pipeline, tune, trial, done.ref)]
    assert statuses == ["FAILED", "KILLED", "KILLED", "FINISHED"]
    with pytest.raises(ValueError, match="'DONE', allowed: FINISHED"):
        close_pipeline_run(pipeline, "DONE")


def test_run_id_in_the_environment_is_not_attached_to(client, pipeline, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    with child_run(pipeline, "train") as tracker:
        tracker.log_metrics({"loss": 1.0})
    assert client.get_run(tracker.ref.run_id).data.metrics == {"loss": 1.0}


def test_settings_are_kept_without_what_could_be_a_secret(home, client, pipeline):
    log_settings(pipeline, json.dumps({"ingest": {"source": "https://u:pw@x.org/a.csv?sig=1", "k_core": 5}}))
    kept = home / "artifacts" / pipeline.run_id / "artifacts" / "settings.json"
    assert json.loads(kept.read_text()) == {"ingest": {"source": "https://x.org/a.csv", "k_core": 5}}
    assert client.get_run(pipeline.run_id).data.params["ingest.source"] == "https://x.org/a.csv"


def test_system_metrics_are_sampled(client, pipeline, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with child_run(pipeline, "train", system_metrics=True) as tracker:
        deadline = time.monotonic() + 10
        while not client.get_run(tracker.ref.run_id).data.metrics and time.monotonic() < deadline:
            time.sleep(0.1)
    assert "system/cpu_utilization_percentage" in client.get_run(tracker.ref.run_id).data.metrics


def test_untracked_run_records_nothing(tmp_path):
    ref = open_pipeline_run("", "x", "", "r", {}, {})
    assert ref == RunRef()
    assert not ref
    with child_run(ref, "train", system_metrics=True) as tracker:
        assert isinstance(tracker, NullTracker)
        tracker.log_metrics({"a": 1.0})
        tracker.log_artifact(tmp_path / "missing")
        with child_run(tracker.ref, "trial"):
            pass
    log_settings(ref, "{}")
    close_pipeline_run(ref, "FINISHED")


def test_run_ref_survives_a_file(tmp_path):
    ref = RunRef("sqlite:////x.db", "1", "abc")
    ref.write(tmp_path / "run.json")
    assert RunRef.read(tmp_path / "run.json") == ref
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(TrackingError, match=r"other\.json: not a reference to an MLflow run"):
        RunRef.read(tmp_path / "other.json")
    with pytest.raises(TrackingError, match=r"gone\.json"):
        RunRef.read(tmp_path / "gone.json")


def test_deleted_experiment_is_named(uri, client):
    ref = open_pipeline_run(uri, "gone", "", "r", {}, {})
    client.delete_experiment(ref.experiment_id)
    with pytest.raises(TrackingError, match="experiment 'gone' is deleted"):
        open_pipeline_run(uri, "gone", "", "r2", {}, {})


def test_no_credentials_in_any_table(home, client, pipeline):
    address = "https://u:hush@h/x?token=hush"

    def step():
        with child_run(pipeline, "t") as tracker:
            tracker.log_dataset({**MANIFEST, "source": address})
            tracker.log_params({"source": address})
            raise ValueError(f"{address} failed")

    with pytest.raises(ValueError, match="failed"):
        step()
    dump = "\n".join(sqlite3.connect(home / "mlflow.db").iterdump())
    assert "ValueError: https://h/x failed" in dump
    assert "hush" not in dump


def test_comparison_shows_the_newest_pipeline_run_that_has_two_models(tmp_path):
    uri = f"sqlite:///{tmp_path / 'compare.db'}"
    expected = []
    for name, models in (("old", ("glintru", "sasrec")), ("newest", ("glintru", "sasrec")), ("running", ("glintru",))):
        pipeline = open_pipeline_run(uri, "e", "", name, {}, {})
        runs = [open_child(pipeline, model, {"kind": "model", "model": model}).run_id for model in models]
        expected = runs if name == "newest" else expected
    path = unquote(comparison_path(uri))
    assert all(run_id in path for run_id in expected)
    assert path.count('"') == 6  # two runs and one experiment
    assert comparison_path(f"sqlite:///{tmp_path / 'empty.db'}") == ""
