"""Training as a TrainJob, with Kubeflow Trainer's local process backend."""

import json
import tempfile

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


def run(folder, best="best.json", *options):
    options = ["--dataset", folder / "sequences", "--best", folder / best, "--output", folder / "model", *options]
    return main([str(option) for option in options])


def test_a_path_that_is_missing_is_told_before_anything_is_submitted(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_this_machine_is_no_more_than_one_node(prepared, capsys):
    assert run(prepared, "best.json", "--nodes", 2) == 2
    assert "--nodes 2 --gpus 0: this machine is one node" in capsys.readouterr().err


@pytest.fixture
def environments(tmp_path, monkeypatch):
    """Where the local backend makes its environments."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_train_job_of_two_processes_leaves_one_model(prepared, environments, capsys):
    assert run(prepared, "best.json", "--processes", 2) == 0
    said = capsys.readouterr().out
    assert "training by 2 processes" in said
    assert said.count("stopped by max_epochs") == 1  # the first process speaks for both
    assert "complete" in said
    assert (prepared / "model" / "model.safetensors").is_file()
    assert json.loads((prepared / "model" / "training.json").read_text())["best_epoch"] == 1
    assert list(environments.iterdir()) == []


@pytest.mark.slow
def test_a_train_job_that_fails_says_so_and_leaves_nothing_behind(prepared, environments, capsys):
    (prepared / "broken.json").write_text(json.dumps({"recommender": {"name": "bert4rec"}, "trials": []}))
    assert run(prepared, "broken.json") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "ended as failed" in line
    assert "bert4rec" in line
    assert list(environments.iterdir()) == []


def training_runtime():
    """The runtime `torch-distributed` as Kubeflow Trainer's API gives it, in short."""
    pod = {"containers": [{"name": "node", "image": "torch"}]}
    node = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    ancestor = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    node["template"]["metadata"] = ancestor
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {"numProcPerNode": "auto"}},
            "template": {"spec": {"replicatedJobs": [node]}},
        },
    }


@pytest.fixture
def trainer_api(backend, monkeypatch):
    """The same small API server with Kubeflow Trainer installed; returns the TrainJobs it was given."""
    created, answer = [], backend.answer

    def extended(method, path, query, body):
        if path.endswith("/clustertrainingruntimes/torch-distributed"):
            return 200, training_runtime()
        if path.endswith("/trainjobs") and method == "POST":
            created.append(body)
            return 200, body
        if "/trainjobs/" in path:
            complete = {"type": "Complete", "status": "True", "reason": "Done", "message": ""}
            complete["lastTransitionTime"] = "2026-01-01T00:00:00Z"
            metadata = {**created[-1]["metadata"], "creationTimestamp": "2026-01-01T00:00:00Z", "namespace": "default"}
            return 200, {**created[-1], "metadata": metadata, "status": {"conditions": [complete]}}
        if "trainer.kubeflow.org" in path or "/configmaps/" in path:
            return 404, {"kind": "Status", "code": 404}
        if path.endswith("/pods"):
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}
        return answer(method, path, query, body)

    monkeypatch.setattr(backend, "answer", extended)
    return created


def test_what_a_cluster_gets_is_a_train_job_of_trainers_own_schema(trainer_api):
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

    options = ["--dataset", "/data/sequences", "--best", "/data/best.json", "--output", "/data/model"]
    where = ["--backend", "kubernetes", "--image", "registry.example/python-glintru:7", "--nodes", "2", "--gpus", "8"]
    assert main([*options, *where]) == 0
    (sent,) = trainer_api
    job = TrainerV1alpha1TrainJob.from_dict(sent)
    assert job.spec.runtime_ref.name == "torch-distributed"
    assert job.spec.trainer.num_nodes == 2
    assert job.spec.trainer.num_proc_per_node is None  # the runtime's `auto`: one for each GPU
    assert job.spec.trainer.image == "registry.example/python-glintru:7"
    assert sent["spec"]["trainer"]["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": 8}
    command = json.dumps(sent["spec"]["trainer"]["command"])
    assert "torchrun" in command
    assert "stages.train" in command


def test_a_cluster_without_kubeflow_trainer_is_told(backend, monkeypatch, capsys):
    monkeypatch.setattr(backend, "answer", lambda *_: (404, {"kind": "Status", "code": 404}))
    options = ["--dataset", "/d", "--best", "/b", "--output", "/m", "--backend", "kubernetes"]
    assert main(options) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: Kubeflow Trainer: Failed to get Runtime: torch-distributed")
