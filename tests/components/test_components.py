"""Every component through its Python function, on real artifacts, in the order of the DAG."""

import json
import re
from pathlib import Path

import pytest
from kfp.dsl import HTML, Artifact, Dataset, Metrics, Model

from components.build_sequences import build_sequences
from components.compare_and_register import compare_and_register
from components.create_study import create_study
from components.evaluate_recommender import evaluate_recommender
from components.ingest_interactions import ingest_interactions
from components.resolve_source import resolve_source
from components.select_hyperparameters import select_hyperparameters
from components.start_run import start_run
from components.train_recommender import train_recommender
from components.tune_recommender import tune_recommender
from glintru_model.config import (
    EvaluationConfig,
    GlintruRecommender,
    IngestConfig,
    RegistryConfig,
    SasrecRecommender,
    SequencesConfig,
    SyntheticConfig,
    TuningConfig,
)

pytestmark = pytest.mark.slow

SIZE = {"max_seq_len": 12, "embedding_dim": 8, "num_heads": 2}
TRAINING = {"max_epochs": 2, "batch_size": 64, "num_threads": 1}
RECOMMENDERS = {
    "glintru": GlintruRecommender(architecture=SIZE, training=TRAINING).model_dump_json(),
    "sasrec": SasrecRecommender(architecture=SIZE, training=TRAINING).model_dump_json(),
}
SYNTHETIC = SyntheticConfig(num_users=200, num_items=60, num_clusters=6, max_length=20)
INGEST = IngestConfig(synthetic=SYNTHETIC).model_dump_json()
EVALUATION = EvaluationConfig(bootstrap_samples=100).model_dump_json()
TUNING = TuningConfig(num_trials=2, num_workers=1, max_epochs=1).model_dump_json()


class Bench:
    """Makes artifacts in one folder and keeps them by name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, {}

    def new(self, kind, name):
        self.made[name] = kind(name=name, uri=str(self.folder / name), metadata={})
        return self.made[name]

    def __getitem__(self, name):
        return self.made[name]


def add_model(bench, name, storage):
    recommender, run, dataset = RECOMMENDERS[name], bench["run"], bench["dataset"]
    study = bench.new(Artifact, f"{name}-study")
    create_study.python_func(recommender, TUNING, "test-run", storage, run, study)
    trials = bench.new(Artifact, f"{name}-trials")
    tune_recommender.python_func(recommender, TUNING, EVALUATION, 0, study, dataset, run, trials)
    best, page = bench.new(Artifact, f"{name}-best"), bench.new(HTML, f"{name}-study-report")
    select_hyperparameters.python_func(recommender, study, [trials], run, best, page)
    model = bench.new(Model, f"{name}-model")
    train_recommender.python_func(EVALUATION, best, dataset, run, model)
    evaluated, metrics = bench.new(Artifact, f"{name}-evaluated"), bench.new(Metrics, f"{name}-metrics")
    report = bench.new(HTML, f"{name}-report")
    evaluate_recommender.python_func(EVALUATION, model, dataset, run, evaluated, metrics, report)


def conclude(bench):
    compare_and_register.python_func(
        RegistryConfig().model_dump_json(),
        bench["interactions"],
        bench["dataset"],
        bench["run"],
        *(bench[f"{name}-{part}"] for name in RECOMMENDERS for part in ("best", "model", "evaluated")),
        bench.new(Artifact, "summary"),
        bench.new(HTML, "report"),
    )
    return json.loads(Path(bench["summary"].path).read_text())


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("components")
    bench, downloads = Bench(folder), str(folder / "downloads")
    sequences = SequencesConfig().model_dump_json()
    fingerprint = resolve_source.python_func(INGEST, sequences, *RECOMMENDERS.values(), downloads)
    run = bench.new(Artifact, "run")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    start_run.python_func("test-run", "tests", uri, str(folder / "mlartifacts"), "abc123", "{}", run)
    interactions = bench.new(Dataset, "interactions")
    ingest_interactions.python_func(INGEST, fingerprint, downloads, interactions)
    dataset, report = bench.new(Dataset, "dataset"), bench.new(HTML, "data-report")
    build_sequences.python_func(sequences, EVALUATION, fingerprint, interactions, dataset, report)
    for name in RECOMMENDERS:
        add_model(bench, name, f"journal:{folder / 'study.journal'}")
    return bench


def test_counts_travel_as_metadata(bench):
    assert bench["interactions"].metadata["num_users"] == 200
    assert bench["dataset"].metadata["num_items"] <= 60
    assert bench["dataset"].metadata["fingerprint"] == bench["interactions"].metadata["fingerprint"]
    assert 0 <= bench["sasrec-model"].metadata["val_ndcg_at_10"] <= 1


def test_figures_for_the_kfp_ui_are_those_of_the_evaluation(bench):
    document = json.loads((Path(bench["glintru-evaluated"].path) / "metrics.json").read_text())
    shown = bench["glintru-metrics"].metadata
    assert shown["ndcg_at_10"] == document["metrics"]["ndcg_at_10"]["value"]
    assert document["split"] == "test"


def test_pages_stand_alone(bench):
    for name in ("data-report", "glintru-study-report", "sasrec-report"):
        text = Path(bench[name].path).read_text()
        assert text.lstrip().lower().startswith("<!doctype html>")
        assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)=["']?http""", text)


def test_a_retried_last_step_registers_nothing_twice(bench):
    first, second = conclude(bench), conclude(bench)
    assert first == second
    versions = {name: model["version"] for name, model in first["models"].items()}
    assert [version["version"] for version in versions.values()] == ["1", "1"]
    assert {version["alias"] for version in versions.values()} == {"champion"}
    assert first["ceiling"]["ndcg_at_10"] > first["baselines"]["popularity"]["ndcg_at_10"]["value"]
