"""The synthetic log has the structure that it claims, and its oracle is exact."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from glintru_model.config import SequencesConfig, SyntheticConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.sequences import load_sequences
from glintru_model.data.synthetic import Oracle, OracleScorer, generate_log, plant_structure
from glintru_model.errors import DataError

SMALL = SyntheticConfig(num_users=300, num_items=60, num_clusters=5, min_length=5, max_length=20)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The default log, built: (dataset, oracle's path)."""
    directory = tmp_path_factory.mktemp("synthetic")
    log, oracle = generate_log(SyntheticConfig())
    pq.write_table(log, directory / "interactions.parquet")
    oracle.save(directory / "oracle.npz")
    build_sequences(directory, directory / "sequences", SequencesConfig())
    return load_sequences(directory / "sequences"), directory / "oracle.npz"


def histories(log):
    frame = log.to_pandas()
    return dict(iter(frame.groupby("user_id")))


def ndcg_at_10(scores, dataset, cases):
    """Independent of the evaluator: rank among the items that the user has not had, ties against the target."""
    gains = []
    for row, (start, end, target) in enumerate(
        zip(cases.history_starts, cases.history_ends, cases.targets, strict=True)
    ):
        ranked = scores[row].astype(np.float64).copy()
        ranked[0] = -np.inf
        ranked[dataset.item_ids[start:end]] = -np.inf
        rank = int((ranked >= ranked[target]).sum())
        gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0)
    return float(np.mean(gains))


def test_probabilities_by_hand():
    oracle = Oracle(
        item_ids=np.array(["a", "b", "c", "d"]),
        clusters=np.array([0, 0, 1, 1]),
        popularity=np.array([0.75, 0.25, 0.6, 0.4]),
        start=np.array([0.5, 0.5]),
        first_order=np.array([[0.1, 0.9], [0.8, 0.2]]),
        second_order=np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.25, 0.75], [0.2, 0.8]]]),
    )
    # Nothing yet; a; then c (the pair of clusters 0, 1: half and half).
    before_last, last = np.array([-1, -1, 0]), np.array([-1, 0, 2])
    seen = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0]], dtype=bool)
    expected = [
        [0.375, 0.125, 0.3, 0.2],
        [0, 0.025 / 0.925, 0.54 / 0.925, 0.36 / 0.925],
        [0, 0.125 / 0.325, 0, 0.2 / 0.325],
    ]
    np.testing.assert_allclose(oracle.probabilities(before_last, last, seen), expected)


def test_the_log_is_what_it_says():
    log, _ = generate_log(SMALL)
    assert log.column_names == ["user_id", "item_id", "timestamp"]
    assert log.column("timestamp").to_pylist() == sorted(log.column("timestamp").to_pylist())
    users = histories(log)
    assert len(users) == 300
    assert {"user-00001", "user-00300"} <= set(users)
    assert set(log.column("item_id").to_pylist()) <= {f"item-{number:04d}" for number in range(60)}
    for events in users.values():
        assert 5 <= len(events) <= 20
        assert events.item_id.is_unique
        assert (events.timestamp.diff().dropna() > 0).all()


def test_same_settings_same_log_other_seed_other_log():
    log, oracle = generate_log(SMALL)
    again, same = generate_log(SMALL)
    assert log.equals(again)
    np.testing.assert_array_equal(oracle.second_order, same.second_order)
    assert not log.equals(generate_log(SMALL.model_copy(update={"seed": 1}))[0])


def test_a_log_drawn_in_several_blocks(monkeypatch):
    monkeypatch.setattr("glintru_model.data.synthetic._CELLS_PER_BLOCK", 60 * 70)  # 70 users at once
    users = histories(generate_log(SMALL)[0])
    assert len(users) == 300
    assert len({tuple(events.item_id[:5]) for events in users.values()}) > 250  # blocks do not repeat each other


@pytest.mark.parametrize("num_clusters", [2, 3, 20])
def test_the_last_item_alone_does_not_tell_the_next_cluster(num_clusters):
    oracle = plant_structure(SyntheticConfig(num_clusters=num_clusters))
    np.testing.assert_allclose(oracle.second_order.sum(axis=2), 1)
    np.testing.assert_allclose(np.bincount(oracle.clusters, oracle.popularity), 1)
    likely = oracle.second_order.argmax(axis=2)
    for last in range(num_clusters):
        assert len(set(likely[:, last])) == 2


def test_the_oracle_is_calibrated():
    """What the oracle calls likely happens as often as it says (3 standard errors)."""
    log, oracle = generate_log(SyntheticConfig(num_users=2_000, num_items=60, num_clusters=5, max_length=20))
    row_of = {item: row for row, item in enumerate(oracle.item_ids)}
    sequences = [[row_of[item] for item in events.item_id] for events in histories(log).values()]
    for length in (0, 1, 2, 11):
        seen = np.zeros((len(sequences), 60), dtype=bool)
        for user, items in enumerate(sequences):
            seen[user, items[:length]] = True
        last, before_last = (
            np.array([items[length - back] if length >= back else -1 for items in sequences]) for back in (1, 2)
        )
        chances = oracle.probabilities(before_last, last, seen)
        guessed = chances.max(axis=1)
        hits = chances.argmax(axis=1) == [items[length] for items in sequences]
        error = np.sqrt((guessed * (1 - guessed)).sum()) / len(sequences)
        assert abs(hits.mean() - guessed.mean()) < 3 * error


def test_oracle_scores_equal_a_slow_count(quickstart):
    dataset, path = quickstart
    oracle = Oracle.load(path)
    cases = dataset.cases("test").select(slice(0, 40))
    scores = OracleScorer.load(path, dataset.vocabulary).score_histories(
        dataset.item_ids, cases.history_starts, cases.history_ends
    )
    assert scores.shape == (40, dataset.num_items + 1)
    names = dataset.vocabulary.item_ids.to_pylist()
    cluster = dict(zip(oracle.item_ids, oracle.clusters, strict=True))
    share = dict(zip(oracle.item_ids, oracle.popularity, strict=True))
    for row, (start, end) in enumerate(zip(cases.history_starts, cases.history_ends, strict=True)):
        had = [names[index - 1] for index in dataset.item_ids[start:end]]
        following = oracle.second_order[cluster[had[-2]], cluster[had[-1]]]
        weights = {name: 0 if name in had else following[cluster[name]] * share[name] for name in oracle.item_ids}
        expected = [weights[name] / sum(weights.values()) for name in names]
        np.testing.assert_allclose(scores[row, 1:].numpy(), expected, rtol=1e-5)


def test_order_2_counts_come_close_to_the_oracle_and_popularity_does_not(quickstart):
    dataset, path = quickstart
    oracle = Oracle.load(path)
    cases = dataset.cases("test")
    ceiling = ndcg_at_10(
        OracleScorer.load(path, dataset.vocabulary)
        .score_histories(dataset.item_ids, cases.history_starts, cases.history_ends)
        .numpy(),
        dataset,
        cases,
    )
    rows = np.searchsorted(oracle.item_ids, dataset.vocabulary.item_ids.to_pylist())
    cluster_of = np.concatenate([[-1], oracle.clusters[rows]])
    num_clusters = len(oracle.start)
    second, first = np.full((num_clusters,) * 3, 0.1), np.full((num_clusters,) * 2, 0.1)
    for start, end in zip(dataset.offsets, dataset.train_ends, strict=False):
        clusters = cluster_of[dataset.item_ids[start : start + end]]
        np.add.at(second, (clusters[:-2], clusters[1:-1], clusters[2:]), 1)
        np.add.at(first, (clusters[:-1], clusters[1:]), 1)
    counts = dataset.vocabulary.train_counts.astype(float)
    within = counts / np.bincount(cluster_of[1:], counts)[cluster_of[1:]]
    last = cluster_of[dataset.item_ids[cases.history_ends - 1]]
    before_last = cluster_of[dataset.item_ids[cases.history_ends - 2]]

    def scored(transitions):
        scores = (transitions / transitions.sum(axis=1, keepdims=True))[:, cluster_of[1:]] * within
        return ndcg_at_10(np.hstack([np.zeros((len(cases), 1)), scores]), dataset, cases)

    popularity = np.tile(np.concatenate([[0], counts]), (len(cases), 1))
    assert ceiling > 0.35
    assert scored(second[before_last, last]) > 0.97 * ceiling
    assert scored(first[last]) < 0.88 * ceiling  # what is left to gain by remembering more than the last item
    assert ndcg_at_10(popularity, dataset, cases) < 0.25 * ceiling


def test_an_oracle_of_another_log_is_refused(quickstart, tmp_path):
    dataset, _ = quickstart
    plant_structure(SMALL).save(tmp_path / "oracle.npz")
    with pytest.raises(DataError, match=r"oracle\.npz: it is of another log, item 'item-\d+' is unknown"):
        OracleScorer.load(tmp_path / "oracle.npz", dataset.vocabulary)


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 cut off", b"\x93NUMPY\x01\x00"])
def test_an_unreadable_oracle_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "oracle.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"oracle\.npz: not a synthetic log's oracle\.npz"):
        Oracle.load(tmp_path / "oracle.npz")
