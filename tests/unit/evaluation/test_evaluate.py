import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from glintru_model.config import EvaluationConfig
from glintru_model.errors import DataError
from glintru_model.evaluation.baselines import Popularity
from glintru_model.evaluation.compare import compare
from glintru_model.evaluation.evaluate import (
    compare_ranks,
    evaluate,
    evaluate_model,
    mean_metrics,
    quantile_groups,
    validation_metrics,
)
from glintru_model.evaluation.result import read_cases, read_metrics

CONFIG = EvaluationConfig(cutoffs=(1, 10), bootstrap_samples=200, batch_size=32)


def seeded(salt):
    return lambda history: np.random.default_rng([salt, *history]).random(30).tolist()


def fixed(scores):
    return lambda history: scores


@pytest.fixture(scope="module")
def evaluation(random_dataset, function_scorer):
    return evaluate_model(function_scorer(seeded(0)), random_dataset, "test", CONFIG)


def test_metrics_are_means_over_users_within_their_intervals(evaluation):
    ranks = evaluation.ranks
    assert evaluation.metrics["recall_at_10"].value == pytest.approx((ranks <= 10).mean())
    assert evaluation.metrics["mrr_at_10"].value == pytest.approx(np.where(ranks <= 10, 1 / ranks, 0).mean())
    assert evaluation.hits == {"hits_at_1": (ranks <= 1).sum(), "hits_at_10": (ranks <= 10).sum()}
    assert all(metric.low <= metric.value <= metric.high for metric in evaluation.metrics.values())
    assert any(metric.low < metric.value < metric.high for metric in evaluation.metrics.values())


def test_quick_metrics_are_those_of_the_full_evaluation(random_dataset, function_scorer):
    scorer = function_scorer(seeded(3))
    quick = validation_metrics(scorer, random_dataset, CONFIG)
    full = evaluate(scorer, random_dataset, "validation", CONFIG)
    assert quick == {name: pytest.approx(full.metrics[name].value) for name in quick}
    assert quick != mean_metrics(scorer, random_dataset, "test", CONFIG)


def test_list_metrics_by_hand(make_dataset, function_scorer):
    # 12 items; training events: item 1 four times (twice for each user), 2 and 3 once each. Top 10 is items 1 to 10.
    dataset = make_dataset([[1, 1, 2, 4, 3], [1, 1, 3, 5, 2]], num_items=12)
    config = EvaluationConfig(filter_seen=False, bootstrap_samples=100)
    result = evaluate(function_scorer(fixed([float(-i) for i in range(12)])), dataset, "test", config)
    coverage = result.metrics["coverage_at_10"]  # neither user's list holds anything that the other's does not
    assert (coverage.value, coverage.low, coverage.high) == (pytest.approx(10 / 12),) * 3
    # Bits: log2(6/4) for item 1, log2 6 for every other one (an item without events counts as if it had one).
    assert result.metrics["novelty_at_10"].value == pytest.approx((np.log2(1.5) + 9 * np.log2(6)) / 10)
    # Doublings: log2(4+1), twice log2(1+1), seven times 0, less that of the target, log2(1+1).
    assert result.metrics["popularity_bias_at_10"].value == pytest.approx((np.log2(5) + 2) / 10 - 1)


def test_popularity_is_more_biased_to_popular_items_than_chance(random_dataset, evaluation):
    popular = evaluate(Popularity(random_dataset), random_dataset, "test", CONFIG)
    bias = "popularity_bias_at_10"
    assert popular.metrics[bias].low > evaluation.metrics[bias].high
    assert popular.metrics["novelty_at_10"].high < evaluation.metrics["novelty_at_10"].low


def test_groups_part_the_users_and_average_to_the_whole(evaluation):
    lengths = evaluation.cases.column("history_length").to_numpy()
    for groups in evaluation.groups.values():
        rows = np.concatenate([group.rows for group in groups])
        assert sorted(rows.tolist()) == list(range(len(evaluation.cases)))
        weighted = sum(len(group.rows) * group.metrics["ndcg_at_10"].value for group in groups)
        assert weighted / len(rows) == pytest.approx(evaluation.metrics["ndcg_at_10"].value)
    maxima = [lengths[group.rows].max() for group in evaluation.groups["history_length"]]
    assert maxima == sorted(set(maxima))


def test_quantile_groups_keep_equal_numbers_together():
    groups = quantile_groups(np.array([5, 1, 1, 1, 1, 1, 9, 7, 1, 1]), 4)
    assert [(label, rows.tolist()) for label, rows in groups] == [
        ("1", [1, 2, 3, 4, 5, 8, 9]),
        ("5", [0]),  # the upper quartile: the eighth of the ten
        ("7\N{EN DASH}9", [6, 7]),
    ]
    assert quantile_groups(np.array([4, 4, 4]), 5)[0][0] == "4"


def test_files_hold_what_was_found(evaluation, random_dataset, tmp_path):
    evaluation.write(tmp_path)
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document == read_metrics(tmp_path)
    assert document["metrics"]["ndcg_at_10"]["value"] == evaluation.metrics["ndcg_at_10"].value
    assert document["num_cases"] == 200
    assert document["filter_seen"] is True
    assert document["num_removed_targets"] == evaluation.num_removed_targets > 0
    assert "above the target" in document["tie_rule"]
    assert set(document["baselines"]) == {"popularity", "recent_popularity", "item_knn", "markov_chain"}
    alone = evaluate(Popularity(random_dataset), random_dataset, "test", CONFIG)
    assert document["baselines"]["popularity"]["ndcg_at_10"]["value"] == alone.metrics["ndcg_at_10"].value
    lead = document["baseline_comparisons"]["popularity"]["ndcg_at_10"]["difference"]
    expected = evaluation.metrics["ndcg_at_10"].value - alone.metrics["ndcg_at_10"].value
    assert lead == pytest.approx(expected)
    rows = pq.read_table(tmp_path / "per_user.parquet").to_pylist()
    cases = random_dataset.cases("test")
    assert rows[17] == {
        "user_id": "user-17",
        "target_item_id": f"item-{cases.targets[17]}",
        "rank": evaluation.ranks[17],
        "history_length": cases.history_ends[17] - cases.history_starts[17],
        "target_train_count": random_dataset.vocabulary.train_counts[cases.targets[17] - 1],
    }


def test_samples_name_items_by_title_where_there_is_one(make_dataset, function_scorer):
    dataset = make_dataset([[1, 2, 3, 4, 5]], titles=["One", "Two", None, "Four", "Five"])
    result = evaluate(function_scorer(fixed([1.0, 2.0, 3.0, 4.0, 5.0])), dataset, "test", CONFIG)
    assert result.samples == [
        {
            "user": "user-0",
            "history": ["One", "Two", "item-3", "Four"],
            "target": "Five",
            "rank": 1,
            "recommended": ["Five"],
        }
    ]


def test_split_without_targets_is_refused(make_dataset, function_scorer):
    dataset = make_dataset([[1, 2], [2, 1]])
    with pytest.raises(DataError, match="no user has a validation target"):
        validation_metrics(function_scorer(fixed([1.0, 2.0])), dataset, CONFIG)


@pytest.fixture
def two_evaluations(random_dataset, function_scorer, tmp_path):
    directories = {}
    for name, salt in (("glintru", 1), ("sasrec", 2)):
        directories[name] = tmp_path / name
        evaluate_model(function_scorer(seeded(salt)), random_dataset, "test", CONFIG).write(directories[name])
    return directories


def test_comparison_is_the_difference_of_the_two(two_evaluations):
    result = compare(two_evaluations)
    ours, theirs = (read_metrics(directory)["metrics"] for directory in two_evaluations.values())
    assert (result["first"], result["second"], result["num_cases"]) == ("glintru", "sasrec", 200)
    for name, pair in result["metrics"].items():
        assert pair["difference"] == pytest.approx(ours[name]["value"] - theirs[name]["value"])
        assert pair["low"] <= pair["difference"] <= pair["high"]
    ranks, other = (read_cases(directory).column("rank").to_numpy() for directory in two_evaluations.values())
    assert result["hits_at_10"]["first_only"] == ((ranks <= 10) & (other > 10)).sum()
    assert sum(result["hits_at_10"].values()) == 200
    for groups in result["groups"].values():
        weighted = sum(group["num_cases"] * group["difference"] for group in groups) / 200
        assert weighted == pytest.approx(result["metrics"]["ndcg_at_10"]["difference"])


def test_a_model_does_not_differ_from_itself(two_evaluations):
    result = compare({"a": two_evaluations["glintru"], "b": two_evaluations["glintru"]})
    assert {pair["difference"] for pair in result["metrics"].values()} == {0}
    assert {pair["p_value"] for pair in result["metrics"].values()} == {1}


def test_different_users_are_not_compared(two_evaluations, random_dataset, function_scorer, tmp_path):
    other = evaluate_model(function_scorer(seeded(1)), random_dataset, "test", CONFIG)
    users = other.cases.column("user_id").to_pylist()
    moved = other.cases.set_column(0, "user_id", [[*users[1:], users[0]]])
    object.__setattr__(other, "cases", moved)
    other.write(tmp_path / "other")
    with pytest.raises(DataError, match="different users or targets"):
        compare({"glintru": two_evaluations["glintru"], "other": tmp_path / "other"})


def test_different_settings_are_not_compared(two_evaluations, random_dataset, function_scorer, tmp_path):
    config = CONFIG.model_copy(update={"filter_seen": False})
    evaluate_model(function_scorer(seeded(1)), random_dataset, "test", config).write(tmp_path / "other")
    with pytest.raises(DataError, match="config is"):
        compare({"glintru": two_evaluations["glintru"], "other": tmp_path / "other"})


@pytest.mark.parametrize(("file", "content"), [("metrics.json", b"[]"), ("per_user.parquet", b"no parquet")])
def test_files_that_are_no_evaluation_are_named(two_evaluations, file, content):
    (two_evaluations["sasrec"] / file).write_bytes(content)
    with pytest.raises(DataError, match=file):
        compare(two_evaluations)


def test_every_event_of_a_part_in_turn(make_dataset, function_scorer):
    # Two events for training, one for validation, three for test.
    dataset = make_dataset([[1, 2, 3, 4, 5, 6]], num_items=8)
    object.__setattr__(dataset, "validation_ends", np.array([3]))
    object.__setattr__(dataset, "train_ends", np.array([2]))
    scorer = function_scorer(fixed([0.0, 0.0, 0.0, 4.0, 3.0, 2.0, 1.0, 0.5]))
    results = {}
    for targets in ("last", "successive"):
        config = EvaluationConfig(filter_seen=False, bootstrap_samples=100, targets=targets)
        results[targets] = evaluate(scorer, dataset, "test", config).ranks.tolist()
    assert results == {"last": [3], "successive": [1, 2, 3]}


def test_a_user_with_many_events_is_resampled_as_one(make_dataset, function_scorer):
    """Twenty events of each user that fare alike say no more than one: the interval must not shrink by sqrt(20)."""
    good, bad = [1, 2] + 20 * [3], [1, 2] + 20 * [4]
    dataset = make_dataset([good if user % 2 else bad for user in range(40)], num_items=20)
    object.__setattr__(dataset, "train_ends", np.full(40, 2))
    object.__setattr__(dataset, "validation_ends", np.full(40, 2))
    scorer = function_scorer(fixed([0.0, 0.0, 9.0, -9.0] + 16 * [1.0]))
    results = {}
    for targets in ("last", "successive"):
        config = EvaluationConfig(filter_seen=False, bootstrap_samples=500, targets=targets)
        results[targets] = evaluate(scorer, dataset, "test", config)
    for name in ("recall_at_10", "novelty_at_10"):
        once, often = (results[targets].metrics[name] for targets in ("last", "successive"))
        assert (once.low, once.value, once.high) == pytest.approx((often.low, often.value, often.high))
    width = results["successive"].metrics["recall_at_10"]
    assert width.high - width.low == pytest.approx(3.92 * 0.5 / np.sqrt(40), rel=0.15)
    assert (results["successive"].document()["num_cases"], results["successive"].document()["num_users"]) == (800, 40)
    ranks, users = results["successive"].ranks, results["successive"].users
    pair = compare_ranks(ranks, np.full(800, 20), users, config)["recall_at_10"]
    assert (pair.low, pair.high) == pytest.approx((width.low, width.high))
