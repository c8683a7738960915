"""The record of training events recognises an event in another dataset, and nothing else."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from glintru_model.data.trained_events import count_trained, write_trained_events
from glintru_model.errors import DataError


def test_own_validation_and_test_events_were_not_trained_on(dataset_of, tmp_path):
    dataset = dataset_of([[1, 2, 1, 3], [2, 2, 2, 2, 2], [3, 1]], num_items=3)
    path = write_trained_events(dataset, tmp_path)
    for split in ("validation", "test"):
        assert count_trained(path, dataset, dataset.cases(split)) == 0


def test_events_that_moved_into_validation_are_recognised(dataset_of, tmp_path):
    old = dataset_of([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]], num_items=5)  # trained on the first three of each
    path = write_trained_events(old, tmp_path)
    longer = dataset_of([[1, 2, 3, 4, 5, 1, 2], [5, 4, 3, 2, 1, 5, 4]], num_items=5)
    assert count_trained(path, longer, longer.cases("validation")) == 0  # second takings of 1 and of 5
    shorter = dataset_of([[1, 2, 3, 4], [5, 4, 3, 2]], num_items=5)  # validation: what was third
    assert count_trained(path, shorter, shorter.cases("validation")) == 2
    assert count_trained(path, shorter, shorter.cases("test")) == 0


def test_recognition_is_by_the_logs_ids_not_by_indices(dataset_of, tmp_path):
    old = dataset_of([[1, 2, 3, 4, 5], [2, 3, 1, 5, 4]], num_items=5)
    path = write_trained_events(old, tmp_path)
    # the same log with its items indexed the other way round and the users in another order, ids as text
    histories = [[6 - item for item in history] for history in ([2, 3, 1, 5], [1, 2, 3, 4])]
    other = dataset_of(histories, num_items=5)
    vocabulary = replace(other.vocabulary, item_ids=pa.array(["5", "4", "3", "2", "1"]))
    renamed = replace(other, vocabulary=vocabulary, user_ids=pa.array(["1", "0"]))
    assert count_trained(path, renamed, renamed.cases("validation")) == 2
    strangers = replace(renamed, user_ids=pa.array(["7", "8"]))
    assert count_trained(path, strangers, strangers.cases("validation")) == 0


def test_a_taking_again_is_another_event(dataset_of, tmp_path):
    old = dataset_of([[1, 1, 2, 3]], num_items=3)  # trained on item 1 twice
    path = write_trained_events(old, tmp_path)
    third = dataset_of([[1, 1, 1, 2]], num_items=3)
    assert count_trained(path, third, third.cases("validation")) == 0
    second = dataset_of([[1, 1, 2]], num_items=3)
    assert count_trained(path, second, second.cases("validation")) == 1


def test_record_is_small(dataset_of, tmp_path):
    rng = np.random.default_rng(0)
    dataset = dataset_of([(rng.integers(0, 500, size=52) + 1).tolist() for _ in range(2000)], num_items=500)
    assert write_trained_events(dataset, tmp_path).stat().st_size < 6.5 * 100_000


def test_what_is_no_record_is_named(dataset_of, tmp_path):
    dataset = dataset_of([[1, 2, 3]], num_items=3)
    (tmp_path / "x").write_text("no")
    for name in ("x", "missing"):
        with pytest.raises(DataError, match=f"{name}: not a record of training events"):
            count_trained(tmp_path / name, dataset, dataset.cases("test"))
