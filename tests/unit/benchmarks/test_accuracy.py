from types import SimpleNamespace

import pytest

from benchmarks.accuracy import keep, seeds_done, with_seed
from glintru_model.config import SasrecRecommender
from glintru_model.files import read_json

DATASET = SimpleNamespace(num_users=3, num_items=4, item_ids=[1, 2, 3, 4, 1])


def run(recommender, ndcg):
    return {"recommender": recommender.model_dump(mode="json"), "test": {"ndcg_at_10": ndcg, "recall_at_10": 2 * ndcg}}


def test_seeds_of_the_same_settings_are_gathered_and_not_repeated(tmp_path):
    output, settings = tmp_path / "accuracy.json", SasrecRecommender()
    assert seeds_done(output, DATASET, "log", with_seed(settings, 0)) == []
    for seed, ndcg in enumerate((0.1, 0.2, 0.3)):
        keep(output, DATASET, "log", run(with_seed(settings, seed), ndcg))
    assert seeds_done(output, DATASET, "log", with_seed(settings, 7)) == [0, 1, 2]
    found = read_json(output)["log"]["sasrec"]
    assert found["ndcg_at_10"] == pytest.approx({"mean": 0.2, "sd": 0.1})
    assert found["recall_at_10"] == pytest.approx({"mean": 0.4, "sd": 0.2})


def test_runs_of_other_settings_give_way_and_other_logs_stay(tmp_path):
    output, settings = tmp_path / "accuracy.json", SasrecRecommender()
    wider = settings.model_copy(
        update={"architecture": settings.architecture.model_copy(update={"embedding_dim": 128})}
    )
    keep(output, DATASET, "other", run(with_seed(settings, 0), 0.4))
    keep(output, DATASET, "log", run(with_seed(settings, 0), 0.1))
    assert seeds_done(output, DATASET, "log", with_seed(wider, 0)) == []
    keep(output, DATASET, "log", run(with_seed(wider, 1), 0.2))
    assert list(read_json(output)["log"]["sasrec"]["seeds"]) == ["1"]
    assert read_json(output)["log"]["sasrec"]["ndcg_at_10"] == {"mean": 0.2, "sd": None}
    assert seeds_done(output, DATASET, "other", with_seed(settings, 0)) == [0]


def test_runs_on_other_sequences_are_not_mixed_in(tmp_path):
    output, settings = tmp_path / "accuracy.json", SasrecRecommender()
    keep(output, DATASET, "log", run(with_seed(settings, 0), 0.1))
    smaller = SimpleNamespace(num_users=2, num_items=4, item_ids=[1, 2, 3])
    assert seeds_done(output, smaller, "log", with_seed(settings, 0)) == []
    keep(output, smaller, "log", run(with_seed(settings, 1), 0.2))
    assert list(read_json(output)["log"]["sasrec"]["seeds"]) == ["1"]
