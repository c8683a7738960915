"""`mlflow models serve` and an MLflow server, both for real."""

import json

import numpy as np
import pytest

from glintru_model.evaluation.metrics import MISS
from glintru_model.evaluation.ranking import rank_targets
from glintru_model.models.files import load_model
from glintru_model.models.scorer import ModelScorer
from glintru_model.serving.recommender import Recommender
from glintru_model.serving.registry import register
from glintru_model.tracking import child_run, connect, open_pipeline_run
from tests.unit.serving.registering import FIRST, ask, server_process


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
        assert (listed.index(99 + target) + 1 if 99 + target in listed else MISS) == rank
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
