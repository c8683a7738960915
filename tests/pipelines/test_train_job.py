"""Training as a TrainJob, with Kubeflow Trainer's local process backend."""

import json

import pytest

from glintru_model import stages
from glintru_model.config import EvaluationConfig, IngestConfig, SasrecRecommender, SequencesConfig
from pipelines.train_job import main

pytest.importorskip("kubeflow.trainer")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train_job")
    synthetic = {"num_users": 50, "num_items": 40, "num_clusters": 4, "min_length": 6, "max_length": 10}
    ingest = IngestConfig.model_validate({"synthetic": synthetic}).model_dump_json()
    stages.ingest(ingest, str(folder), str(folder / "interactions"))
    stages.build_sequences(
        SequencesConfig().model_dump_json(),
        EvaluationConfig(bootstrap_samples=100).model_dump_json(),
        str(folder / "interactions"),
        str(folder / "sequences"),
        str(folder / "report.html"),
    )
    settings = {"architecture": {"max_seq_len": 8, "embedding_dim": 8}, "training": {"max_epochs": 1}}
    recommender = SasrecRecommender.model_validate(settings)
    (folder / "best.json").write_text(json.dumps({"recommender": recommender.model_dump(), "trials": []}))
    return folder


def run(folder, best="best.json"):
    options = ["--dataset", folder / "sequences", "--best", folder / best, "--output", folder / "model"]
    return main([str(option) for option in options])


def test_a_path_that_is_missing_is_told_before_anything_is_submitted(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "no such file or folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_train_job_leaves_a_model(prepared, capsys):
    assert run(prepared) == 0
    assert "complete" in capsys.readouterr().out
    assert (prepared / "model" / "model.safetensors").is_file()
    assert json.loads((prepared / "model" / "training.json").read_text())["best_epoch"] >= 0


@pytest.mark.slow
def test_a_train_job_that_fails_says_so(prepared, capsys):
    (prepared / "broken.json").write_text(json.dumps({"recommender": {"name": "bert4rec"}, "trials": []}))
    assert run(prepared, "broken.json") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "ended as failed" in line
    assert "bert4rec" in line
