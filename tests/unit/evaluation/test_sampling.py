"""Sampled metrics: by hand, by distribution, and never under a plain name."""

import numpy as np
import pytest
import torch

from glintru_model.config import EvaluationConfig
from glintru_model.evaluation.evaluate import evaluate, mean_metrics
from glintru_model.evaluation.sampling import PopularitySampler, sampled_ranks

COUNTS = np.array([50, 30, 0, 15, 5])


def test_negatives_follow_popularity_and_never_are_the_target():
    sampler = PopularitySampler(COUNTS, 100, seed=3)
    rows = np.arange(3000)
    for target in (1, 2, 3, 5):
        drawn = sampler.draw(rows, np.full(len(rows), target, dtype=np.int32))
        assert drawn.shape == (3000, 100)
        assert target not in drawn
        weights = np.where(np.arange(1, 6) == target, 0, COUNTS)
        shares = np.bincount(drawn.ravel(), minlength=6)[1:] / drawn.size
        # 300,000 draws: four standard errors of a share are below 0.004
        np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.004)


def test_draws_depend_on_the_case_and_the_seed_alone():
    targets = np.array([1, 2, 4, 5, 1], dtype=np.int32)
    sampler = PopularitySampler(COUNTS, 20, seed=0)
    whole = sampler.draw(np.arange(5), targets)
    rows = np.array([4, 1])
    assert (sampler.draw(rows, targets[rows]) == whole[rows]).all()
    assert (whole[0] != whole[4]).any()
    assert (PopularitySampler(COUNTS, 20, seed=1).draw(np.arange(5), targets) != whole).any()


def test_no_other_item_leaves_no_negative():
    drawn = PopularitySampler(np.array([0, 7]), 4, seed=0).draw(np.array([0, 1]), np.array([2, 1], dtype=np.int32))
    assert drawn.tolist() == [[0] * 4, [2] * 4]


def test_ranks_by_hand():
    scores = torch.tensor([[9.0, 0.5, 0.9, 0.5, 0.1, 0.7]] * 2)
    negatives = np.array([[2, 2, 4, 5], [3, 3, 0, 4]], dtype=np.int32)
    # first: items 2 (once) and 5 are above 0.5; second: item 3 ties, which counts against; padding never does
    assert sampled_ranks(scores, np.array([1, 1], dtype=np.int32), negatives).tolist() == [3, 2]


@pytest.fixture
def scorer(function_scorer):
    return function_scorer(lambda history: np.random.default_rng(history).random(30).tolist())


def test_sampled_metrics_stand_beside_the_full_ones_under_their_own_names(random_dataset, scorer):
    config = EvaluationConfig(cutoffs=(1, 10), bootstrap_samples=100, sampled_negatives=7)
    metrics = evaluate(scorer, random_dataset, "test", config).metrics
    plain = {name for name in metrics if "_pop" not in name}
    assert {name.removesuffix("_pop7") for name in metrics if name.endswith("_pop7")} == {
        f"{kind}_at_{k}" for kind in ("ndcg", "recall", "mrr") for k in (1, 10)
    }
    assert metrics["recall_at_1_pop7"].value > metrics["recall_at_1"].value
    assert metrics["recall_at_10_pop7"].value == 1  # 8 candidates
    without = evaluate(scorer, random_dataset, "test", config.model_copy(update={"sampled_negatives": 0})).metrics
    assert without.keys() == plain
    assert {name: metrics[name] for name in plain} == without
    assert not [name for name in mean_metrics(scorer, random_dataset, "test", config) if "pop" in name]


def test_batch_size_does_not_change_them(random_dataset, scorer):
    config = EvaluationConfig(bootstrap_samples=100)
    small = evaluate(scorer, random_dataset, "test", config.model_copy(update={"batch_size": 3})).metrics
    assert small == evaluate(scorer, random_dataset, "test", config).metrics


def test_constant_scorer_is_not_flattered(random_dataset, function_scorer):
    config = EvaluationConfig(bootstrap_samples=100, sampled_negatives=100)
    metrics = evaluate(function_scorer(lambda history: [1.0] * 30), random_dataset, "test", config).metrics
    assert metrics["recall_at_5_pop100"].value == 0
