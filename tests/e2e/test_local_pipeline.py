"""The whole pipeline by kfp.local, as a user starts it, on a small log of her own."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests.e2e.running import ROOT, SETTINGS, Outcome, run_pipeline, write_log

pytestmark = pytest.mark.slow


@dataclass
class Runs:
    """Three runs over one path: new, unchanged, and with the file edited and SASRec trained by two processes."""

    first: Outcome
    again: Outcome
    edited: Outcome
    folders: list[Path]
    runs_dir: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    log, config, runs_dir = folder / "log.csv", folder / "tiny.yaml", folder / "runs"
    config.write_text(yaml.safe_dump(SETTINGS))
    options = ("--config", config, "--data", log, "--runs-dir", runs_dir)
    write_log(log, num_users=60)
    first, again = run_pipeline(*options), run_pipeline(*options)
    write_log(log, num_users=70)
    changed = copy.deepcopy(SETTINGS)
    changed["models"]["sasrec"]["training"]["num_processes"] = 2
    config.write_text(yaml.safe_dump(changed))
    edited = run_pipeline(*options)
    return Runs(first, again, edited, sorted(runs_dir.glob("tiny-*")), runs_dir)


def test_every_run_ends_green_and_says_what_it_reached_and_what_to_type_next(runs):
    for outcome in (runs.first, runs.again, runs.edited):
        assert outcome.code == 0, outcome.out + outcome.err
        assert "Traceback" not in outcome.out + outcome.err
    out = runs.first.out
    assert out.startswith("Running on this machine (kfp.local")
    assert "GLINT-RU" in out
    assert "glintru v1 (champion)" in out
    assert "sasrec v1 (champion)" in out
    assert "make mlflow-ui" in out


def test_an_unchanged_log_is_not_read_again_and_an_edited_one_is(runs):
    for step in ("ingest interactions", "build sequences"):
        reused = f"{step} (unchanged, reused)"
        assert reused not in runs.first.out
        assert reused in runs.again.out
        assert reused not in runs.edited.out
    counts = [json.loads((folder / "summary.json").read_text())["num_cases"] for folder in runs.folders]
    assert counts == [60, 60, 70]


def test_a_task_trains_by_as_many_processes_as_it_is_told(runs):
    from mlflow import MlflowClient

    assert "training by 2 processes" not in runs.again.out
    assert runs.edited.out.count("training by 2 processes, on cpu") == 1
    assert runs.edited.out.count("train sasrec: stopped by") == 1  # the second process is silent, and not tracked
    client = MlflowClient(f"sqlite:///{runs.runs_dir / 'mlflow.db'}")
    (version,) = client.search_model_versions(f"name = 'sasrec' and tags.pipeline_run = '{runs.folders[2].name}'")
    assert [loss.step for loss in client.get_metric_history(version.run_id, "train/loss")] == [1, 2]


def test_what_ran_is_the_compiled_dag(runs):
    spec = next(yaml.safe_load_all((runs.folders[0] / "pipeline.yaml").read_text()))
    compiled = {key.removeprefix("comp-") for key in spec["components"] if "for-loop" not in key}
    first_root = min((runs.runs_dir / "tasks").iterdir())
    ran = {path.parent.name for path in first_root.glob("**/executor_output.json")}
    assert ran == compiled


def test_both_models_are_registered_once_per_run_below_their_pipeline_run(runs):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs.runs_dir / 'mlflow.db'}")
    for name in ("glintru", "sasrec"):
        versions = client.search_model_versions(f"name = '{name}'")
        assert len(versions) == 3
        assert {version.tags["pipeline_run"] for version in versions} == {folder.name for folder in runs.folders}
        assert client.get_model_version_by_alias(name, "champion").run_id
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in found} <= {"FINISHED", "KILLED"}
    parents = [run for run in found if run.data.tags.get("kind") == "pipeline"]
    assert len(parents) == 3
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    by_name = {run.info.run_name: run for run in children}
    assert {"glintru", "sasrec", "tune glintru", "tune sasrec", "comparison"} <= by_name.keys()
    assert {"difference/ndcg_at_10", "p_value/ndcg_at_10"} <= by_name["comparison"].data.metrics.keys()
    figures = [
        {name for name in by_name[model].data.metrics if not name.startswith("system/")}
        for model in ("glintru", "sasrec")
    ]
    assert figures[0] == figures[1]  # side by side on MLflow's compare page
    assert "test/ndcg_at_10_pop100" in figures[0]
    for run in children:
        if run.info.run_name in ("glintru", "sasrec"):
            metrics = run.data.metrics
            assert {"val/ndcg_at_10", "test/ndcg_at_10", "train/loss"} <= metrics.keys()
            for metric in ("ndcg_at_10", "coverage_at_10", "novelty_at_10", "recall_at_10_pop100"):
                low, high = (metrics[f"test {bound}/{metric}"] for bound in ("low", "high"))
                assert low <= metrics[f"test/{metric}"] <= high
            kept = json.loads(
                Path(client.download_artifacts(run.info.run_id, f"evaluation-{run.info.run_name}.json")).read_text()
            )
            assert kept["groups"]["history_length"][0]["metrics"]["ndcg_at_10"].keys() == {"value", "low", "high"}


def test_champion_of_the_log_before_is_scored_again_on_the_new_users(runs):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs.runs_dir / 'mlflow.db'}")
    for name in ("glintru", "sasrec"):
        by_run = {version.tags["pipeline_run"]: version for version in client.search_model_versions(f"name = '{name}'")}
        first, again, edited = (by_run[folder.name] for folder in runs.folders)
        assert first.tags["decision_reason"].startswith("the first champion")
        assert (again.tags["compared_with"], again.tags["compared_users"]) == (str(first.version), "60")
        assert edited.tags["compared_users"] == "70"
        assert edited.tags["dataset_hash"] != again.tags["dataset_hash"]
        assert (
            f"on the same 70 users: difference {float(edited.tags['validation_difference']):.4f}" in edited.description
        )
    scored_again = "the dataset has changed: scoring champion version"
    assert scored_again in runs.edited.out
    assert scored_again not in runs.again.out


def make(runs_dir, *arguments):
    """Run a command of the Makefile in the environment of the tests, whatever the age of its stamp."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    stamp, environment = f"{sys.prefix}/pipeline.stamp", f"VENV={sys.prefix}"
    command = ["make", "--silent", "--old-file", stamp, environment, f"RUNS={runs_dir}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, check=False)


def test_champion_is_moved_by_make_and_back(runs):
    """The last of the tests over these runs that asks who is champion: it leaves everything as it was."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs.runs_dir / 'mlflow.db'}")
    before = client.get_model_version_by_alias("sasrec", "champion").version
    other = next(v for v in client.search_model_versions("name = 'sasrec'") if v.version != before)
    moved = make(runs.runs_dir, "promote", "MODEL=sasrec", f"VERSION={other.version}")
    assert moved.returncode == 0, moved.stderr
    assert f"sasrec: version {other.version} is champion, promoted by hand" in moved.stdout
    assert client.get_model_version_by_alias("sasrec", "champion").version == other.version
    assert f"in place of version {before}" in client.get_model_version("sasrec", other.version).description
    back = make(runs.runs_dir, "rollback", "MODEL=sasrec")
    assert f"version {before} is champion, rolled back from version {other.version}" in back.stdout
    assert client.get_model_version_by_alias("sasrec", "champion").version == before
    refused = make(runs.runs_dir, "promote", "MODEL=sasrec", "VERSION=99")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: registered model 'sasrec' has no version '99', there are: 1, 2, 3")


def test_everything_lies_under_one_folder(runs):
    assert {path.name for path in runs.runs_dir.parent.iterdir()} == {"log.csv", "tiny.yaml", "runs"}
    for folder in runs.folders:
        assert {path.name for path in folder.iterdir()} >= {"pipeline.yaml", "pipeline.log", "report.html"}
    assert list(runs.runs_dir.rglob(".*.tmp")) == []


def assert_no_run_is_left_open(database):
    from mlflow import MlflowClient

    if database.exists():
        client = MlflowClient(f"sqlite:///{database}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        assert "RUNNING" not in {run.info.status for run in client.search_runs(experiments)}


def test_a_polite_end_ends_the_tasks_and_closes_the_run(tmp_path):
    command = [sys.executable, "-m", "pipelines.run", "--runs-dir", str(tmp_path / "runs")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if "trial 1/" in line:
            break
    tasks = psutil.Process(process.pid).children(recursive=True)
    assert tasks
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted")
    assert psutil.wait_procs(tasks, timeout=10)[1] == []
    assert_no_run_is_left_open(tmp_path / "runs" / "mlflow.db")
