import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glintru_model.errors import TrainingError
from glintru_model.evaluation.metrics import MISS, metrics_from_ranks
from glintru_model.evaluation.ranking import rank_targets


def naive_rank(scores, target, seen):
    """Sort the candidates in plain Python, the target last among its equals; None if it is no candidate."""
    candidates = [item for item in range(1, len(scores) + 1) if item not in seen]
    if target not in candidates:
        return None
    candidates.sort(key=lambda item: (-scores[item - 1], item == target))
    return candidates.index(target) + 1


def rank_all(scorer, dataset, split="test", **settings):
    options = {"filter_seen": True, "batch_size": 64, **settings}
    return rank_targets(scorer, dataset, dataset.cases(split), **options)


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_agrees_with_plain_sorting(random_dataset, function_scorer, filter_seen, levels):
    def score(history):
        rng = np.random.default_rng(history)
        return (rng.integers(0, levels, size=30) / 16).tolist()

    cases = random_dataset.cases("test")
    result = rank_all(function_scorer(score), random_dataset, filter_seen=filter_seen, batch_size=7, top_k=10)
    removed = 0
    for row, rank in enumerate(result.ranks):
        history = random_dataset.item_ids[cases.history_starts[row] : cases.history_ends[row]].tolist()
        seen = set(history) if filter_seen else set()
        scores = score(history)
        expected = naive_rank(scores, int(cases.targets[row]), seen)
        removed += expected is None
        assert rank == (MISS if expected is None else expected)
        best = [scores[item - 1] for item in result.recommended[row] if item]
        left = sorted((scores[item - 1] for item in range(1, 31) if item not in seen), reverse=True)
        assert best == left[:10]
        assert not seen & set(result.recommended[row].tolist())
    assert result.num_removed_targets == removed
    assert (removed > 0) == filter_seen


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(-2, 2), min_size=6, max_size=6),
    history=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    target=st.integers(1, 6),
)
def test_any_scores_history_and_target_agree_with_plain_sorting(make_dataset, function_scorer, scores, history, target):
    dataset = make_dataset([[1, 1, *history, target]], num_items=6)
    seen = {1, *history}
    result = rank_all(function_scorer(lambda _: [float(score) for score in scores]), dataset)
    expected = naive_rank(scores, target, seen)
    assert result.ranks.tolist() == [MISS if expected is None else expected]


def test_constant_scorer_ranks_every_target_last(random_dataset, function_scorer):
    result = rank_all(function_scorer(lambda _: [0.5] * 30), random_dataset, filter_seen=False)
    assert set(result.ranks.tolist()) == {30}


def test_seen_target_is_a_counted_miss_only_with_the_filter(make_dataset, function_scorer):
    dataset = make_dataset([[1, 2, 3, 2], [1, 2, 3, 4]], num_items=5)
    scorer = function_scorer(lambda _: [5.0, 4.0, 3.0, 2.0, 1.0])
    filtered = rank_all(scorer, dataset)
    assert filtered.ranks.tolist() == [MISS, 1]
    assert filtered.num_removed_targets == 1
    unfiltered = rank_all(scorer, dataset, filter_seen=False)
    assert unfiltered.ranks.tolist() == [2, 4]
    assert unfiltered.num_removed_targets == 0


def test_history_is_everything_before_the_target(make_dataset, function_scorer):
    dataset = make_dataset([[1, 2, 3, 4, 5]])
    for split, history in (("validation", [1, 2, 3]), ("test", [1, 2, 3, 4])):
        scorer = function_scorer(lambda _: [0.0] * 5)
        rank_all(scorer, dataset, split)
        assert scorer.histories == [history]


def test_recommends_nothing_twice_and_nothing_seen_when_candidates_run_out(make_dataset, function_scorer):
    dataset = make_dataset([[1, 2, 3, 4]], num_items=5)
    result = rank_all(function_scorer(lambda _: [1.0, 2.0, 3.0, 4.0, 5.0]), dataset, top_k=8)
    assert result.recommended.tolist() == [[5, 4, 0, 0, 0, 0, 0, 0]]


def test_batch_size_changes_nothing(random_dataset, function_scorer):
    scorer = function_scorer(lambda history: np.random.default_rng(history).random(30).tolist())
    one, many = (rank_all(scorer, random_dataset, batch_size=size, top_k=5) for size in (1, 1000))
    assert one.ranks.tolist() == many.ranks.tolist()
    assert one.recommended.tolist() == many.recommended.tolist()


def test_scores_of_the_scorer_are_left_alone(make_dataset):
    dataset = make_dataset([[1, 2, 3, 4], [2, 3, 4, 1]])
    shared = torch.arange(5.0)

    class Shared:
        def score_histories(self, item_ids, starts, ends):
            return shared.expand(len(starts), -1)

    rank_all(Shared(), dataset)
    assert shared.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_cannot_be_ranked_are_refused(make_dataset, function_scorer, bad):
    dataset = make_dataset([[1, 2, 3, 4]])
    with pytest.raises(TrainingError, match="not a finite number"):
        rank_all(function_scorer(lambda _: [1.0, bad, 2.0, 3.0]), dataset)


def test_padding_column_may_hold_anything(make_dataset):
    dataset = make_dataset([[1, 2, 3, 4]])

    class Padded:
        def score_histories(self, item_ids, starts, ends):
            return torch.tensor([[float("nan"), 1.0, 2.0, 3.0, 4.0]])

    assert rank_all(Padded(), dataset, filter_seen=False).ranks.tolist() == [1]


def test_scores_of_a_wrong_shape_are_refused(make_dataset, function_scorer):
    dataset = make_dataset([[1, 2, 3, 4]])
    with pytest.raises(TrainingError, match=r"shape \(1, 4\), not \(1, 5\)"):
        rank_all(function_scorer(lambda _: [1.0, 2.0, 3.0]), dataset)


def test_a_target_that_the_filter_removes_is_a_miss_however_small_the_catalogue(dataset_of, function_scorer):
    dataset = dataset_of([[1, 2, 3, 1], [1, 2, 3, 2]], num_items=3)
    result = rank_all(function_scorer(lambda history: [3.0, 2.0, 1.0]), dataset)
    assert result.num_removed_targets == 2
    assert metrics_from_ranks(result.ranks, (10,))["recall_at_10"].tolist() == [0.0, 0.0]
