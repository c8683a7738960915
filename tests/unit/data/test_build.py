"""Splits, order and vocabulary, against tables worked by hand, a pandas reference and random logs."""

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glintru_model.config import SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.sequences import SequenceDataset, load_sequences
from glintru_model.errors import DataError

LEAVE_ONE_OUT = SequencesConfig()
TEMPORAL = SequencesConfig(split="temporal", validation_quantile=0.6, test_quantile=0.8)


def histories(dataset: SequenceDataset) -> dict[Any, tuple[list[Any], list[Any], list[Any]]]:
    """Each user's (train, validation, test) events as the log's own item ids."""
    ids = [None, *dataset.vocabulary.item_ids.to_pylist()]
    found = {}
    for row, user in enumerate(dataset.user_ids.to_pylist()):
        events = [ids[i] for i in dataset.item_ids[dataset.offsets[row] : dataset.offsets[row + 1]]]
        train_end, validation_end = dataset.train_ends[row], dataset.validation_ends[row]
        found[user] = (events[:train_end], events[train_end:validation_end], events[validation_end:])
    return found


def core_of(log: pd.DataFrame, counted: pd.Series, k: int) -> tuple[set, set]:
    """k-core by pandas: users and items with k or more of the counted events among themselves."""
    core = log[counted]
    size = -1
    while size != len(core):
        size = len(core)
        users, items = core.user_id.value_counts(), core.item_id.value_counts()
        core = core[core.user_id.isin(users[users >= k].index) & core.item_id.isin(items[items >= k].index)]
    return set(core.user_id), set(core.item_id)


def build(directory: Path, config: SequencesConfig) -> SequenceDataset:
    build_sequences(directory, directory / "sequences", config)
    return load_sequences(directory / "sequences")


def reference(log: pd.DataFrame, config: SequencesConfig) -> tuple[dict[Any, tuple[list, list, list]], list[Any]]:
    """The same split by pandas and plain Python: (histories by user, vocabulary)."""
    log = log.reset_index(drop=True)
    if config.split == "temporal":
        times = np.sort(log.timestamp.to_numpy())
        cuts = [times[math.ceil(q * len(times)) - 1] for q in (config.validation_quantile, config.test_quantile)]
        log["part"] = [sum(time > cut for cut in cuts) for time in log.timestamp]
    if config.k_core > 1:
        counted = log.part == 0 if config.split == "temporal" else log.user_id == log.user_id
        users, items = core_of(log, counted, config.k_core)
        log = log[log.user_id.isin(users) & log.item_id.isin(items)].copy()
    if config.split == "temporal":
        ordered = log.sort_values(["user_id", "timestamp"], kind="stable")
    else:
        ordered = log.sort_values(["user_id", "timestamp"], kind="stable")
        left = ordered.groupby("user_id").cumcount(ascending=False)
        length = ordered.groupby("user_id").item_id.transform("size")
        ordered["part"] = np.where(length < 3, 0, np.clip(2 - left, 0, 2))
    if config.max_history:
        from_newest = ordered[ordered.part == 0].groupby("user_id").cumcount(ascending=False)
        ordered = ordered.drop(from_newest[from_newest >= config.max_history].index)
    counts = ordered[ordered.part == 0].item_id.value_counts().to_dict()
    if config.split == "temporal":
        ordered = ordered[ordered.item_id.isin(counts)]
    vocabulary = sorted(set(ordered.item_id), key=lambda item: (-counts.get(item, 0), item))
    split = {
        user: tuple(events[events.part == part].item_id.tolist() for part in (0, 1, 2))
        for user, events in ordered.groupby("user_id")
    }
    return split, vocabulary


def test_leave_one_out_by_hand(interactions):
    directory = interactions(
        [
            ("u2", "c", 30),
            ("u1", "b", 20),
            ("u1", "a", 10),
            ("u1", "d", 40),  # the latest of u1, though not the last in the log
            ("u1", "c", 30),
            ("u2", "b", 10),
            ("u2", "a", 20),
            ("u3", "a", 5),
            ("u3", "b", 6),  # two events: all training
        ]
    )
    dataset = build(directory, LEAVE_ONE_OUT)
    assert histories(dataset) == {
        "u1": (["a", "b"], ["c"], ["d"]),
        "u2": (["b"], ["a"], ["c"]),
        "u3": (["a", "b"], [], []),
    }
    # Training counts: b 3, a 2; c and d have none and stand last, by id. Over the whole log a would lead (3 each).
    assert dataset.vocabulary.item_ids.to_pylist() == ["b", "a", "c", "d"]
    assert dataset.vocabulary.train_counts.tolist() == [3, 2, 0, 0]
    # Five training events: the most recent tenth is the one latest, u1's b at 20.
    assert dataset.vocabulary.recent_train_counts.tolist() == [1, 0, 0, 0]
    assert dataset.manifest["num_train"] == 5
    assert dataset.manifest["num_cold_items"] == 2


def test_temporal_by_hand(interactions):
    # Ten events; the cut for validation lies at the 6th time (6), for test at the 8th (8).
    directory = interactions(
        [
            ("u1", "a", 1),
            ("u1", "b", 2),
            ("u1", "a", 7),
            ("u2", "b", 3),
            ("u2", "c", 4),
            ("u2", "c", 6),
            ("u2", "new", 8),  # no training event: dropped from validation
            ("u3", "b", 5),
            ("u3", "a", 9),
            ("u4", "c", 10),  # a user with no event before the test cut
        ]
    )
    dataset = build(directory, TEMPORAL)
    assert histories(dataset) == {
        "u1": (["a", "b"], ["a"], []),
        "u2": (["b", "c", "c"], [], []),
        "u3": (["b"], [], ["a"]),
        "u4": ([], [], ["c"]),
    }
    assert dataset.vocabulary.item_ids.to_pylist() == ["b", "c", "a"]
    manifest = dataset.manifest
    assert (manifest["validation_cut"], manifest["test_cut"]) == (6, 8)
    assert (manifest["num_cold_items"], manifest["num_cold_users"]) == (1, 1)
    assert (manifest["num_dropped_validation"], manifest["num_dropped_test"]) == (1, 0)
    # u4 has a test event but nothing before it: no case.
    assert dataset.cases("test").user_rows.tolist() == [2]


def test_temporal_drops_a_user_who_only_had_cold_items(interactions):
    directory = interactions(
        [*(("u", "ab"[t % 2], t) for t in range(9)), ("u", "a", 9), ("w", "new", 8), ("v", "a", 10), ("v", "b", 11)]
    )
    dataset = build(directory, TEMPORAL)
    assert dataset.user_ids.to_pylist() == ["u", "v"]
    assert dataset.manifest["num_dropped_users"] == 1


def test_ties_in_time_keep_the_order_of_the_log(interactions):
    rows = [("u", item, 7) for item in "zayb"] + [("v", item, 7) for item in "bzya"]
    assert histories(build(interactions(rows), LEAVE_ONE_OUT)) == {
        "u": (["z", "a"], ["y"], ["b"]),
        "v": (["b", "z"], ["y"], ["a"]),
    }


def test_fractional_timestamps_are_not_rounded(interactions):
    base = 1_400_000_000
    rows = [("u", "late", base + 0.75), ("u", "early", base + 0.25), ("u", "mid", base + 0.5)]
    assert histories(build(interactions(rows), LEAVE_ONE_OUT))["u"] == (["early"], ["mid"], ["late"])


def test_timestamps_beyond_float64_keep_their_order(interactions):
    base = 2**60
    rows = [("u", "late", base + 3), ("u", "early", base + 1), ("u", "mid", base + 2)]
    assert histories(build(interactions(rows), LEAVE_ONE_OUT))["u"] == (["early"], ["mid"], ["late"])


def test_users_stand_in_ascending_order_whatever_the_type(interactions):
    rows = [(user, item, time) for user in (10, 9, 2) for time, item in enumerate("abc")]
    assert build(interactions(rows), LEAVE_ONE_OUT).user_ids.to_pylist() == [2, 9, 10]


REAL = [
    ("ml-100k", LEAVE_ONE_OUT),
    ("ml-100k", SequencesConfig(split="temporal")),
    ("ml-100k", SequencesConfig(split="temporal", k_core=10, max_history=50)),
    ("amazon-beauty", SequencesConfig(k_core=8)),
    ("amazon-beauty", SequencesConfig(split="temporal", k_core=5)),
    ("amazon-video-games", SequencesConfig(k_core=5, max_history=20)),
    pytest.param("ml-1m", SequencesConfig(k_core=20), marks=pytest.mark.slow),
    pytest.param("ml-1m", SequencesConfig(split="temporal", k_core=5, max_history=100), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "config"), REAL)
def test_real_log_equals_the_pandas_reference(real_log, tmp_path, name, config):
    shutil.copy(real_log(name), tmp_path / "interactions.parquet")
    dataset = build(tmp_path, config)
    expected, vocabulary = reference(pd.read_parquet(tmp_path / "interactions.parquet"), config)
    assert dataset.vocabulary.item_ids.to_pylist() == vocabulary
    assert histories(dataset) == expected


def test_same_input_gives_the_same_bytes_and_other_input_another_hash(interactions, tmp_path):
    rows = [(user, item, time) for user in range(20) for time, item in enumerate("abcde")]
    directory = interactions(rows)
    first = build_sequences(directory, tmp_path / "one", LEAVE_ONE_OUT)
    second = build_sequences(directory, tmp_path / "two", LEAVE_ONE_OUT)
    assert first == second
    for name in ("sequences.arrow", "vocabulary.arrow", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    changed = build_sequences(interactions([*rows[:-1], (19, "a", 4)]), tmp_path / "three", LEAVE_ONE_OUT)
    assert changed["dataset_hash"] != first["dataset_hash"]


def test_titles_travel_with_the_vocabulary(interactions):
    directory = interactions([("u", item, time) for time, item in enumerate("abc")])
    titles = pa.table({"item_id": ["c", "a", "unused"], "title": ["Sea", "Ay", "-"]})
    pq.write_table(titles, directory / "items.parquet")
    vocabulary = build(directory, LEAVE_ONE_OUT).vocabulary
    assert dict(zip(vocabulary.item_ids.to_pylist(), vocabulary.titles.to_pylist(), strict=True)) == {
        "a": "Ay",
        "b": None,
        "c": "Sea",
    }


def test_a_split_without_targets_is_refused_and_leaves_nothing(interactions, tmp_path):
    directory = interactions([("u", "a", 1), ("u", "b", 2), ("v", "a", 1)])
    with pytest.raises(DataError, match=r"validation part is empty \(no user has 3 events or more; 2 users, 3 inter"):
        build_sequences(directory, tmp_path / "sequences", LEAVE_ONE_OUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["interactions"]


def test_one_time_for_all_events_cannot_be_cut(interactions, tmp_path):
    directory = interactions([(user, item, 5) for user in "uv" for item in "abcd"])
    with pytest.raises(DataError, match=r"split 'temporal': the validation part is empty \(cuts at 5 and 5"):
        build_sequences(directory, tmp_path / "sequences", TEMPORAL)


def test_a_failed_build_keeps_the_earlier_result(interactions, tmp_path):
    build_sequences(interactions([("u", i, t) for t, i in enumerate("abc")]), tmp_path / "out", LEAVE_ONE_OUT)
    with pytest.raises(DataError):
        build_sequences(interactions([("u", "a", 1)]), tmp_path / "out", LEAVE_ONE_OUT)
    assert load_sequences(tmp_path / "out").num_users == 1


@pytest.mark.parametrize("content", [b"", b"PAR1 this is no parquet PAR1"])
def test_unreadable_interactions_are_named(tmp_path, content):
    (tmp_path / "interactions.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"interactions\.parquet: "):
        build_sequences(tmp_path, tmp_path / "out", LEAVE_ONE_OUT)


def test_missing_interactions_are_named(tmp_path):
    with pytest.raises(DataError, match=r"interactions\.parquet: no such file"):
        build_sequences(tmp_path, tmp_path / "out", LEAVE_ONE_OUT)


events = st.tuples(st.integers(0, 6), st.integers(0, 8), st.integers(0, 15))
configs = st.builds(
    lambda base, k_core, max_history: base.model_copy(update={"k_core": k_core, "max_history": max_history}),
    st.sampled_from([LEAVE_ONE_OUT, TEMPORAL, SequencesConfig(split="temporal")]),
    st.sampled_from([0, 2, 3]),
    st.sampled_from([0, 1, 3]),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(events, min_size=1, max_size=80), config=configs)
def test_random_logs(interactions, rows, config):
    directory = interactions(rows)
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    expected, vocabulary = reference(log, config)
    if any(all(not parts[part] for parts in expected.values()) for part in (1, 2)):
        with pytest.raises(DataError, match=r"part is empty|no user is left"):
            build(directory, config)
        return
    dataset = build(directory, config)
    # Order kept, nothing lost or invented but what the manifest counts.
    assert histories(dataset) == expected
    assert dataset.vocabulary.item_ids.to_pylist() == vocabulary
    manifest = dataset.manifest
    assert manifest["num_train"] + manifest["num_validation"] + manifest["num_test"] == len(dataset.item_ids)
    # The training part alone decides the vocabulary's counts.
    trained = [item for train, _, _ in expected.values() for item in train]
    assert dataset.vocabulary.train_counts.tolist() == [trained.count(item) for item in vocabulary]
    dropped = manifest["num_dropped_validation"] + manifest["num_dropped_test"]
    if config.k_core == config.max_history == 0:
        assert manifest["num_interactions"] + dropped == len(rows)
        pairs = [(user, item) for user, item, _ in rows]
        if not dropped:
            assert manifest["num_repeats"] == len(pairs) - len(set(pairs))
            assert manifest["num_duplicates"] == len(rows) - len(set(rows))
    if config.split == "temporal":
        # Every training event is before every other event, for everyone.
        newest = log[log.timestamp <= manifest["validation_cut"]]
        assert Counter(trained) <= Counter(newest.item_id)
        if config.k_core == config.max_history == 0:
            assert len(newest) == len(trained)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(events, min_size=10, max_size=80),
    later=st.lists(events, max_size=40),
    k_core=st.sampled_from([0, 2]),
)
def test_nothing_after_the_cut_changes_what_is_trained_on(interactions, rows, later, k_core):
    config = SequencesConfig(split="temporal", validation_start=8, test_start=12, k_core=k_core)
    rows = [*rows, (0, 0, 1), (0, 0, 2), (1, 0, 1), (1, 0, 2), (0, 0, 9), (0, 0, 13)]
    changed = [row for row in rows if row[2] < 8] + [(user, item, 8 + time % 4) for user, item, time in later]
    changed += [(0, 0, 9), (0, 0, 13)]
    before, after = (build(interactions(log), config) for log in (rows, changed))
    assert after.vocabulary.item_ids.to_pylist() == before.vocabulary.item_ids.to_pylist()
    assert after.vocabulary.train_counts.tolist() == before.vocabulary.train_counts.tolist()
    assert after.vocabulary.recent_train_counts.tolist() == before.vocabulary.recent_train_counts.tolist()
    trained = [{u: train for u, (train, _, _) in histories(dataset).items() if train} for dataset in (before, after)]
    assert trained[0] == trained[1]


# -- k-core, maximum history, dates, stable indices


def test_k_core_goes_on_until_nothing_changes(interactions):
    # c has one user; without c, w has one event; without w, b has one user; without b, v has one event.
    log = [("u", "a", 1), ("u", "d", 2), ("u", "a", 9), ("x", "a", 3), ("x", "d", 4), ("x", "d", 9)]
    chain = [("v", "a", 5), ("v", "b", 6), ("w", "b", 7), ("w", "c", 8)]
    dataset = build(interactions([*log, *chain]), SequencesConfig(k_core=2))
    assert histories(dataset) == {"u": (["a"], ["d"], ["a"]), "x": (["a"], ["d"], ["d"])}
    assert dataset.manifest["steps"] == [
        {"step": "interactions", "num_users": 4, "num_items": 4, "num_interactions": 10},
        {"step": "k_core 2", "num_users": 2, "num_items": 2, "num_interactions": 6},
    ]
    assert dataset.manifest["num_dropped_users"] == 2


def test_k_core_counts_training_events_alone_under_a_temporal_split(interactions):
    # "late" has three events, of which one is for training; so has v. Over the whole log both would be in the 2-core.
    rows = [("u", "a", 1), ("u", "a", 2), ("w", "a", 3), ("w", "a", 4), ("u", "late", 5), ("v", "a", 6)]
    rows += [("v", "a", 20), ("w", "late", 21), ("u", "a", 22), ("v", "a", 30), ("u", "late", 31), ("w", "a", 32)]
    config = SequencesConfig(split="temporal", validation_start=10, test_start=30, k_core=2)
    dataset = build(interactions(rows), config)
    assert histories(dataset) == {"u": (["a", "a"], ["a"], []), "w": (["a", "a"], [], ["a"])}
    assert (dataset.manifest["num_dropped_validation"], dataset.manifest["num_dropped_test"]) == (2, 2)
    assert dataset.manifest["num_cold_items"] == 0


def test_no_user_left_after_k_core(interactions, tmp_path):
    directory = interactions([("u", "a", 1), ("v", "a", 2), ("v", "b", 3)])
    with pytest.raises(DataError) as caught:
        build_sequences(directory, tmp_path / "out", SequencesConfig(k_core=5))
    assert str(caught.value) == (
        "no user is left after 'k_core 5': before it there were 2 users, 2 items and 3 interactions"
    )
    assert not (tmp_path / "out").exists()


def test_max_history_takes_the_oldest_training_events_and_no_target(interactions):
    rows = [("u", item, time) for time, item in enumerate("abcdefg")] + [
        ("v", item, time) for time, item in enumerate("ab")
    ]
    dataset = build(interactions(rows), SequencesConfig(max_history=2))
    assert histories(dataset) == {"u": (["d", "e"], ["f"], ["g"]), "v": (["a", "b"], [], [])}
    assert dataset.vocabulary.train_counts.sum() == 4
    assert dataset.manifest["steps"][-1]["num_interactions"] == 6


@pytest.mark.parametrize("fraction", [0, 0.5])
def test_cut_by_date(interactions, fraction):
    day = 86_400
    start = 1_704_067_200  # 2024-01-01
    rows = [("u", item, start + day * place + fraction) for place, item in ((-2, "a"), (-1, "b"), (0, "b"), (1, "a"))]
    rows += [("u", "a", start - 1 + fraction), ("u", "b", start + day)]
    config = SequencesConfig(split="temporal", validation_start="2024-01-01", test_start="2024-01-02T00:00:00Z")
    dataset = build(interactions(rows), config)
    assert histories(dataset) == {"u": (["a", "b", "a"], ["b"], ["a", "b"] if not fraction else ["b", "a"])}
    assert dataset.manifest["validation_start"] == "2024-01-01"


def test_indices_of_earlier_sequences_stay(interactions, tmp_path):
    rows = [(user, item, time) for user in "uvw" for time, item in enumerate("abca")]
    first = build(interactions(rows), SequencesConfig())
    shutil.copytree(tmp_path / "interactions" / "sequences", tmp_path / "earlier")
    new = [(user, item, 10 + time) for user in "uvwx" for time, item in enumerate("zzzyz")]
    config = SequencesConfig(keep_indices_of=str(tmp_path / "earlier"))
    second = build(interactions([row for row in rows if row[1] != "b"] + new), config)
    old = first.vocabulary.item_ids.to_pylist()
    assert second.vocabulary.item_ids.to_pylist() == [*old, "z", "y"]
    assert second.vocabulary.train_counts[old.index("b")] == 0  # gone from the log, but keeps its place
    assert second.manifest["num_new_items"] == 2
    assert histories(second)["x"] == (["z", "z", "z"], ["y"], ["z"])


def test_indices_of_earlier_sequences_of_other_ids_are_refused(interactions, tmp_path):
    build(interactions([("u", item, item) for item in range(4)]), SequencesConfig())
    shutil.copytree(tmp_path / "interactions" / "sequences", tmp_path / "earlier")
    directory = interactions([("u", item, time) for time, item in enumerate("abc")])
    with pytest.raises(DataError, match="item ids are int64 there and string here"):
        build(directory, SequencesConfig(keep_indices_of=str(tmp_path / "earlier")))
