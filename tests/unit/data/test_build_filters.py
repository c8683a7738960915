"""k-core, maximum history, cuts by date and indices that stay, against tables worked by hand."""

import shutil

import pytest

from glintru_model.config import SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.errors import DataError
from tests.unit.data.splits import build, histories


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
