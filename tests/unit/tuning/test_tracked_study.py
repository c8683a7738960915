"""A study and its MLflow runs, and the study's page."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from glintru_model.config import TuningConfig
from glintru_model.errors import TrainingError
from glintru_model.tracking import close_pipeline_run, connect, open_child, open_pipeline_run
from glintru_model.tuning import objective
from glintru_model.tuning.report import study_figures, write_study_report
from glintru_model.tuning.study import load_study, open_study, trial_rows
from glintru_model.tuning.worker import open_tune_run, run_worker

CONFIG = TuningConfig(num_trials=9, max_epochs=3, min_epochs_before_pruning=1)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('tuning') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def client(uri):
    return connect(uri)


@pytest.fixture
def pipeline(uri, request):
    return open_pipeline_run(uri, "tuning", "", request.node.name, {}, {})


@pytest.fixture
def work(recommender, dataset, storage, pipeline):
    def run(worker=0):
        open_study(storage, "s", CONFIG, recommender)
        arguments = {"storage": storage, "study_name": "s", "worker": worker, "tracker_parent": pipeline}
        return run_worker(recommender, dataset, CONFIG, validate=lambda _: {}, **arguments)

    return run


def children(client, parent_id, experiment_id):
    return client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'")


def trial_runs(client, pipeline):
    tune_run = open_child(pipeline, "tune sasrec")
    return {int(run.data.tags["trial"]): run for run in children(client, tune_run.run_id, pipeline.experiment_id)}


def test_each_trial_is_a_run_that_ends_as_its_trial_did(work, client, pipeline, storage, known_training, monkeypatch):
    good, calls = objective.train, []

    def fails_once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise TrainingError("loss nan")
        return good(*args, **kwargs)

    monkeypatch.setattr(objective, "train", fails_once)
    work()
    rows, runs = trial_rows(storage, "s"), trial_runs(client, pipeline)
    ends = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    assert {row["state"] for row in rows} == set(ends)
    assert {n: run.info.status for n, run in runs.items()} == {row["number"]: ends[row["state"]] for row in rows}
    assert [run.info.run_name for run in children(client, pipeline.run_id, pipeline.experiment_id)] == ["tune sasrec"]
    for row in rows:
        run = runs[row["number"]]
        assert float(run.data.params["training.learning_rate"]) == row["training.learning_rate"]
        if row["state"] != "failed":
            history = client.get_metric_history(run.info.run_id, "val/ndcg_at_10")
            assert [entry.step for entry in history] == list(range(1, row["epochs"] + 1))
            assert max(entry.value for entry in history) == row["value"]
    assert runs[2].data.tags["error"] == "TrainingError: loss nan"


def test_run_of_a_vanished_worker_is_ended(work, client, pipeline, known_training, monkeypatch):
    class GoneError(BaseException):
        pass

    def die(*_, **__):
        raise GoneError

    def stay_open(*_):
        """A process that is gone closes nothing."""

    with monkeypatch.context() as patched:
        patched.setattr(objective, "train", die)
        patched.setattr("glintru_model.tracking.runs.close_pipeline_run", stay_open)
        with pytest.raises(GoneError):
            work()
    assert {run.info.status for run in trial_runs(client, pipeline).values()} == {"RUNNING"}
    assert work() == 9
    statuses = [run.info.status for _, run in sorted(trial_runs(client, pipeline).items())]
    assert len(statuses) == 10
    assert statuses[0] == "KILLED"
    assert "RUNNING" not in statuses


def test_page_shows_every_trial_and_the_plots(work, storage, tmp_path, known_training):
    work()
    figures = study_figures(storage, "s")
    titles = [figure.layout.title.text for figure in figures]
    assert titles[:2] == ["Best trial so far", "Every trial, epoch by epoch"]
    assert "training.learning_rate of each trial" in titles
    best_line = next(trace for trace in figures[0].data if trace.mode != "markers")
    complete = [row["value"] for row in trial_rows(storage, "s") if row["state"] == "complete"]
    assert max(best_line.y) == pytest.approx(max(complete))
    write_study_report(tmp_path / "study.html", storage, "s", "sasrec")
    page = (tmp_path / "study.html").read_text()
    assert "Tuning sasrec" in page
    assert "All trials" in page
    assert "architecture.dropout_rate" in page


def test_page_of_a_study_without_completed_trials_is_written_too(recommender, storage, tmp_path):
    open_study(storage, "s", CONFIG, recommender)
    assert study_figures(storage, "s") == []
    write_study_report(tmp_path / "study.html", storage, "s", "sasrec")
    assert "Tuning sasrec" in (tmp_path / "study.html").read_text()


WORKER = """
import importlib.util, json, sys
from glintru_model.config import TuningConfig
from glintru_model.tracking import RunRef
from glintru_model.tuning.worker import open_tune_run, run_worker

arguments = json.loads(sys.argv[1])
spec = importlib.util.spec_from_file_location("helpers", arguments["helpers"])
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)

def validate(model):
    from glintru_model.models.scorer import ModelScorer
    dataset = helpers.make_dataset()
    cases = dataset.cases("validation")
    scores = ModelScorer(model).score_histories(dataset.item_ids, cases.history_starts, cases.history_ends)
    return {"ndcg_at_10": float((scores.argmax(1).numpy() == cases.targets).mean())}

print(run_worker(
    helpers.make_recommender(device="cpu", num_threads=1), helpers.make_dataset(), TuningConfig(**arguments["config"]),
    storage=arguments["storage"], study_name="s", worker=arguments["worker"], validate=validate,
    tracker_parent=RunRef(**arguments["run"]),
))
"""


@pytest.mark.slow
def test_two_processes_share_one_budget_and_one_database(client, pipeline, storage, request):
    """Real trainings: the model learns to walk round the catalogue."""
    helpers = Path(__file__).with_name("conftest.py")
    config = TuningConfig(num_trials=5, max_epochs=4, min_epochs_before_pruning=2)
    configured = request.getfixturevalue("real_recommender")
    open_study(storage, "s", config, configured)
    open_tune_run(pipeline, configured)
    processes = []
    for worker in range(2):
        arguments = {"helpers": str(helpers), "config": config.model_dump(), "storage": storage, "worker": worker}
        command = [sys.executable, "-c", WORKER, json.dumps({**arguments, "run": asdict(pipeline)})]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    counts = [int(output.splitlines()[-1]) for output, _ in answers]
    assert sum(counts) == 5
    assert len(trial_rows(storage, "s")) == 5
    assert [errors for _, errors in answers] == ["", ""]  # neither MLflow nor Optuna chats
    runs = trial_runs(client, pipeline)
    numbers = {trial.number for trial in load_study(storage, "s").trials if "run_id" in trial.user_attrs}
    assert set(runs) == numbers
    assert {run.info.status for run in runs.values()} <= {"FINISHED", "KILLED"}
    assert len(children(client, pipeline.run_id, pipeline.experiment_id)) == 1
    close_pipeline_run(pipeline, "FINISHED")
