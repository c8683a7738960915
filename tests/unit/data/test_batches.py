import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glintru_model.data.batches import TrainingBatches
from glintru_model.errors import DataError

NUM_ITEMS = 1000


def batches_of(dataset, *, max_seq_len=5, batch_size=4, every_position=True, seed=0):
    return TrainingBatches(
        dataset,
        max_seq_len=max_seq_len,
        batch_size=batch_size,
        every_position=every_position,
        seed=seed,
        device="cpu",
    )


def numbered(lengths):
    """Histories in which every event is an item of its own, so that an item says where it stands."""
    ends = np.cumsum(lengths)
    return [list(range(end - length + 1, end + 1)) for length, end in zip(lengths, ends, strict=True)]


def pairs(batches, epoch=0):
    """List (inputs up to the target, target) of an epoch."""
    found = []
    for batch in batches.epoch(epoch):
        for row, position, target in zip(batch.rows, batch.positions, batch.targets, strict=True):
            found.append((batch.item_ids[row, : position + 1].tolist(), target.item()))
    return found


LENGTHS = st.lists(st.integers(1, 24), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=LENGTHS, max_seq_len=st.integers(1, 9), batch_size=st.integers(1, 6), epoch=st.integers(0, 3))
def test_every_training_event_but_the_first_is_a_target_once_after_what_came_before_it(
    dataset_of, lengths, max_seq_len, batch_size, epoch
):
    histories = numbered([2, *lengths])
    dataset = dataset_of(histories, NUM_ITEMS)
    parts = [history[:end] for history, end in zip(histories, dataset.train_ends, strict=True)]
    batches = batches_of(dataset, max_seq_len=max_seq_len, batch_size=batch_size)
    found = pairs(batches, epoch)
    assert sorted(target for _, target in found) == [item for part in parts for item in part[1:]]
    assert batches.num_targets == len(found)
    history_of = {item: part for part in parts for item in part}
    for inputs, target in found:
        assert 1 <= len(inputs) <= max_seq_len
        place = history_of[target].index(target)
        assert inputs == history_of[target][place - len(inputs) : place]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=LENGTHS, max_seq_len=st.integers(1, 9), batch_size=st.integers(1, 6))
def test_a_prefix_sample_holds_all_that_max_seq_len_allows(dataset_of, lengths, max_seq_len, batch_size):
    histories = numbered([2, *lengths])
    dataset = dataset_of(histories, NUM_ITEMS)
    batches = batches_of(dataset, max_seq_len=max_seq_len, batch_size=batch_size, every_position=False)
    expected = [
        (part[max(0, t - max_seq_len) : t], part[t])
        for part in (history[:end] for history, end in zip(histories, dataset.train_ends, strict=True))
        for t in range(1, len(part))
    ]
    assert sorted(pairs(batches)) == sorted(expected)
    for batch in batches.epoch(0):
        assert torch.equal(batch.positions, batch.lengths - 1)


def test_windows_of_a_long_history_are_full_but_at_its_ends_and_cut_anew_each_epoch(dataset_of):
    dataset = dataset_of([list(range(1, 16))], 20)  # 13 training events: 12 inputs
    oldest = []
    for epoch in range(40):
        (batch,) = batches_of(dataset, max_seq_len=5).epoch(epoch)
        rows = sorted(row[row > 0].tolist() for row in batch.item_ids)
        assert [item for row in rows for item in row] == list(range(1, 13))
        assert all(len(row) == 5 for row in rows[1:-1])
        oldest.append(len(rows[0]))
    assert set(oldest) == {1, 2, 3, 4, 5}


def test_a_history_of_max_seq_len_is_never_cut(dataset_of):
    dataset = dataset_of([list(range(1, 9))], 20)  # 6 training events: 5 inputs
    for epoch in range(10):
        (batch,) = batches_of(dataset, max_seq_len=5).epoch(epoch)
        assert batch.lengths.tolist() == [5]


def test_validation_and_test_events_are_never_seen(dataset_of):
    dataset = dataset_of([[1, 2, 3, 98, 99], [4, 5, 6, 98, 99]], 99)
    (batch,) = batches_of(dataset).epoch(0)
    assert sorted(batch.item_ids.flatten().tolist()) == [1, 2, 4, 5]
    assert sorted(batch.targets.tolist()) == [2, 3, 5, 6]


def test_seed_and_epoch_alone_decide_the_order(dataset_of):
    random = np.random.default_rng(0)
    dataset = dataset_of(numbered(random.integers(3, 30, 40)), NUM_ITEMS)

    def order(seed, epoch):
        return [target for _, target in pairs(batches_of(dataset, seed=seed), epoch)]

    torch.manual_seed(1)
    first = order(0, 0)
    torch.manual_seed(2)
    assert order(0, 0) == first
    assert order(1, 0) != first
    assert order(0, 1) != first


def test_batches_hold_equal_numbers_of_targets_of_like_length(dataset_of):
    random = np.random.default_rng(0)
    dataset = dataset_of(numbered(np.minimum(random.geometric(0.03, 3000) + 3, 200)), 1_000_000)
    batches = batches_of(dataset, max_seq_len=50, batch_size=64)
    sizes = [len(batch.targets) for batch in batches.epoch(0)]
    assert max(sizes) - min(sizes) <= 100  # two windows
    inputs = dataset.train_ends - 1
    assert len(sizes) == round((-(-inputs // 50)).sum() / 64)
    assert sum(sizes) == inputs.sum()
    assert batches.padding_share(0) < 0.06


def test_padding_of_ml_1m_is_below_a_tenth(dataset_of, real_log):
    table = pq.read_table(real_log("ml-1m"), columns=["user_id"])
    lengths = np.array([count.as_py() for count in table["user_id"].value_counts().field("counts")])
    dataset = dataset_of([np.ones(length, dtype=int) for length in lengths], 1)
    assert batches_of(dataset, max_seq_len=200, batch_size=128).padding_share(0) < 0.1


@pytest.mark.parametrize("histories", [[[1], [2]], [[1, 2, 3]]])
def test_without_a_second_training_event_there_is_nothing_to_train_on(dataset_of, histories):
    with pytest.raises(DataError, match="2 training events"):
        batches_of(dataset_of(histories, 5))


@pytest.mark.parametrize("item", [0, 6])
def test_an_item_outside_the_vocabulary_is_refused(dataset_of, item):
    dataset = dataset_of([[1, 2, 3, 4, 5]], 5)
    dataset.item_ids[1] = item
    with pytest.raises(DataError, match=rf"item index {item}, allowed: 1\.\.5"):
        batches_of(dataset)
