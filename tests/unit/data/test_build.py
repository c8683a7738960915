"""Splits, order, vocabulary and refusals, against tables worked by hand."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glintru_model.data.build import build_sequences
from glintru_model.data.sequences import load_sequences
from glintru_model.errors import DataError
from tests.unit.data.splits import LEAVE_ONE_OUT, TEMPORAL, build, histories


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
