"""Loading, ids and evaluation cases."""

import numpy as np
import pyarrow as pa
import pytest

from glintru_model.config import SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.sequences import SequenceDataset, Vocabulary, load_sequences, load_vocabulary
from glintru_model.errors import DataError


def vocabulary(item_ids) -> Vocabulary:
    counts = np.ones(len(item_ids), dtype=np.int64)
    return Vocabulary(pa.array(item_ids), counts, counts)


@pytest.fixture
def directory(interactions, tmp_path):
    rows = [(user, item, time) for user in ("u", "v") for time, item in enumerate("abca")]
    build_sequences(interactions(rows), tmp_path / "sequences", SequencesConfig())
    return tmp_path / "sequences"


@pytest.mark.parametrize(
    ("known", "asked", "expected"),
    [
        (["x", "y"], ["y", "x", "nope", None], [2, 1, 0, 0]),
        (["7", "10"], [10, 7, 8], [2, 1, 0]),
        ([7, 10], [10, 7, 8, None], [2, 1, 0, 0]),
        ([7, 10], ["10", "7", "x7", "", " 7"], [2, 1, 0, 0, 0]),
        ([7, 10], [10.0, 7.5, float("nan")], [2, 0, 0]),
        ([7, 10], ["10", 7, "x"], [2, 1, 0]),
        ([7, 10], ["99999999999999999999999"], [0]),
        ([7, 10], [[7]], [0]),
        ([7, 10], [], []),
        (["x"], [], []),
    ],
)
def test_index_of(known, asked, expected):
    found = vocabulary(known).index_of(asked)
    assert found.dtype == np.int32
    assert found.tolist() == expected


def test_index_of_takes_arrow_arrays():
    assert vocabulary([5, 6]).index_of(pa.array([6, 5, 1], pa.int32())).tolist() == [2, 1, 0]
    assert vocabulary(["a"]).index_of(pa.array(["a", "b"]).dictionary_encode()).tolist() == [1, 0]


def make(offsets, train_ends, validation_ends) -> SequenceDataset:
    total = offsets[-1]
    users = pa.array(range(len(train_ends)))
    return SequenceDataset(
        users,
        np.array(offsets),
        np.arange(1, total + 1, dtype=np.int32),
        np.array(train_ends),
        np.array(validation_ends),
        vocabulary(list(range(total))),
        {},
    )


def test_cases_by_hand():
    # user 0: 3 train, 1, 1; user 1: 2 train, none; user 2: nothing before its only test event;
    # user 3: 1 train, 2 validation, 3 test: the last of each part; user 4: two validation events and no training.
    dataset = make([0, 5, 7, 8, 14, 16], [3, 2, 0, 1, 0], [4, 2, 0, 3, 2])
    validation, test = dataset.cases("validation"), dataset.cases("test")
    assert validation.user_rows.tolist() == [0, 3, 4]
    assert validation.targets.tolist() == [4, 11, 16]
    assert list(zip(validation.history_starts, validation.history_ends, strict=True)) == [(0, 3), (8, 10), (14, 15)]
    assert test.user_rows.tolist() == [0, 3]
    assert test.targets.tolist() == [5, 14]
    assert list(zip(test.history_starts, test.history_ends, strict=True)) == [(0, 4), (8, 13)]
    assert len(test) == 2


def test_successive_cases_by_hand():
    # As above: every event of the part in turn, but never one that nothing precedes (user 2's only, user 4's first).
    dataset = make([0, 5, 7, 8, 14, 16], [3, 2, 0, 1, 0], [4, 2, 0, 3, 2])
    validation, test = dataset.cases("validation", "successive"), dataset.cases("test", "successive")
    assert validation.user_rows.tolist() == [0, 3, 3, 4]
    assert validation.targets.tolist() == [4, 10, 11, 16]
    assert list(zip(validation.history_starts, validation.history_ends, strict=True)) == [
        (0, 3),
        (8, 9),
        (8, 10),
        (14, 15),
    ]
    assert test.user_rows.tolist() == [0, 3, 3, 3]
    assert test.targets.tolist() == [5, 12, 13, 14]
    assert test.history_ends.tolist() == [4, 11, 12, 13]


def test_select_takes_slices_and_rows():
    cases = make([0, 5, 10, 15], [3, 3, 3], [4, 4, 4]).cases("test")
    assert cases.select(slice(1, None)).targets.tolist() == [10, 15]
    chosen = cases.select(np.array([2, 0]))
    assert (chosen.user_rows.tolist(), chosen.history_ends.tolist()) == ([2, 0], [14, 4])


def test_files_are_mapped_not_read(directory):
    dataset = load_sequences(directory)
    before = pa.total_allocated_bytes()
    again = load_sequences(directory)
    assert pa.total_allocated_bytes() - before < 1024
    assert again.item_ids.dtype == np.int32
    assert not again.item_ids.flags.owndata
    assert again.item_ids.tolist() == dataset.item_ids.tolist()


def test_missing_directory(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json: cannot read"):
        load_sequences(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["sequences.arrow", "vocabulary.arrow"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "other"])
def test_damaged_files_are_named(directory, name, damage):
    path = directory / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "other": b"x" * 400}[damage])
    with pytest.raises(DataError, match=name):
        load_sequences(directory)


def test_a_file_of_other_columns_is_refused(tmp_path):
    batch = pa.record_batch({"wrong": [1]})
    with pa.OSFile(str(tmp_path / "v.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(DataError, match=r"v\.arrow: no column 'item_id', found wrong"):
        load_vocabulary(tmp_path / "v.arrow")


def test_files_of_two_builds_do_not_mix(directory, interactions, tmp_path):
    rows = [(user, item, time) for user in ("u", "v", "w") for time, item in enumerate("abcd")]
    build_sequences(interactions(rows), tmp_path / "other", SequencesConfig())
    (tmp_path / "other" / "sequences.arrow").replace(directory / "sequences.arrow")
    with pytest.raises(DataError, match=r"num_users is 3, manifest\.json says 2"):
        load_sequences(directory)


@pytest.mark.parametrize(("train_end", "validation_end"), [(9, 9), (3, 2), (2, 9), (-1, 2)])
def test_a_part_that_leaves_its_history_is_refused(directory, train_end, validation_end):
    path = directory / "sequences.arrow"
    batch = pa.ipc.open_file(path.read_bytes()).get_batch(0)
    for name, end in (("train_end", train_end), ("validation_end", validation_end)):
        column = batch.schema.get_field_index(name)
        ends = [*batch.column(name).to_pylist()[:-1], end]
        batch = batch.set_column(column, batch.schema.field(column), pa.array(ends, batch.schema.field(column).type))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(
        DataError, match=rf"user 1: train_end {train_end}, validation_end {validation_end}, expected 0 <="
    ):
        load_sequences(directory)
