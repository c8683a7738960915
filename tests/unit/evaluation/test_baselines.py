import numpy as np
import pytest

from glintru_model.evaluation import baselines
from glintru_model.evaluation.baselines import BASELINES, ItemKNN, MarkovChain, Popularity, RecentPopularity

# Training parts: 1 2 | 1 2 3 | 1 3. Items 4 and 5 occur only as targets.
TINY = [[1, 2, 4, 5], [1, 2, 3, 4, 5], [1, 3, 5, 4]]


def score(scorer, history):
    flat = np.array(history, dtype=np.int32)
    return scorer.score_histories(flat, np.array([0]), np.array([len(history)]))[0, 1:].tolist()


def test_popularity_counts_training_events(make_dataset):
    assert score(Popularity(make_dataset(TINY)), [4]) == [3, 2, 2, 0, 0]


def test_recent_popularity_puts_recent_events_before_all_others(make_dataset):
    dataset = make_dataset(TINY, recent_counts=[0, 1, 2, 0, 0])
    scores = score(RecentPopularity(dataset), [1])
    assert sorted(range(1, 6), key=lambda item: -scores[item - 1])[:3] == [3, 2, 1]
    assert scores[3] == scores[4] == 0


def test_item_knn_sums_cosines_over_distinct_history_items(make_dataset):
    scorer = ItemKNN(make_dataset(TINY))
    # Users of item 1: all three; of 2: the first two; of 3: the last two.
    cosine_12, cosine_13, cosine_23 = 2 / np.sqrt(6), 2 / np.sqrt(6), 1 / 2
    assert score(scorer, [2]) == pytest.approx([cosine_12, 0, cosine_23, 0, 0])
    assert score(scorer, [2, 3]) == pytest.approx([cosine_12 + cosine_13, cosine_23, cosine_23, 0, 0])
    assert score(scorer, [2, 2, 2]) == pytest.approx(score(scorer, [2]))


def test_markov_chain_counts_what_followed_the_last_item(make_dataset):
    scorer = MarkovChain(make_dataset(TINY))
    # After 1: 2 twice, 3 once. Prior: one event, shared as the 7 training events 3:2:2.
    expected = [(0 + 3 / 7) / 4, (2 + 2 / 7) / 4, (1 + 2 / 7) / 4, 0, 0]
    assert score(scorer, [3, 1]) == pytest.approx(expected)
    assert score(scorer, [5]) == pytest.approx([3 / 7, 2 / 7, 2 / 7, 0, 0])


def test_markov_chain_does_not_join_two_users(make_dataset):
    dataset = make_dataset([[1, 1, 2, 3, 3], [2, 2, 2, 1, 1]], num_items=3)
    # Training parts 1 1 2 | 2 2 2: nothing follows item 1 of the second user.
    assert score(MarkovChain(dataset), [1]) == pytest.approx([(1 + 2 / 6) / 3, (1 + 4 / 6) / 3, 0])


@pytest.mark.parametrize("name", BASELINES)
def test_targets_leave_no_trace(make_dataset, name):
    swapped = [[*history[:-2], history[-1], history[-2]] for history in TINY]
    other = [[*history[:-2], 1, 2] for history in TINY]
    for history in ([1], [2, 3], [4]):
        scores = score(BASELINES[name](make_dataset(TINY)), history)
        assert scores == score(BASELINES[name](make_dataset(swapped)), history)
        assert scores == score(BASELINES[name](make_dataset(other, num_items=5)), history)


def test_item_knn_by_blocks_with_few_neighbours_agrees_with_the_dense_computation(random_dataset, monkeypatch):
    monkeypatch.setattr(baselines, "_KNN_ROWS_AT_ONCE", 4)
    monkeypatch.setattr(baselines, "_KNN_NEIGHBOURS", 5)
    seen = np.zeros((200, 31))
    for user in range(200):
        start = random_dataset.offsets[user]
        seen[user, random_dataset.item_ids[start : start + random_dataset.train_ends[user]]] = 1
    norms = np.sqrt(np.maximum(seen.sum(axis=0), 1))
    cosines = (seen.T @ seen) / norms[:, None] / norms
    np.fill_diagonal(cosines, 0)
    for item in range(31):
        for far in sorted(range(31), key=lambda j, row=cosines[item]: (-row[j], j))[5:]:
            cosines[item, far] = 0
    history = [3, 9, 3, 17]
    expected = cosines[[3, 9, 17]].sum(axis=0)[1:]
    assert score(ItemKNN(random_dataset), history) == pytest.approx(expected.tolist(), abs=1e-5)
