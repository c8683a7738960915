"""The record of which events a model was trained on, small enough to keep beside every registered version.

An event is known by its user, its item and how many times this user had had this item before, each by the log's own
ids; so it is recognised in a later log whatever that log's index of users and items. The record holds 56 bits of a
hash of each, sorted and delta-coded: about five bytes an event.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from glintru_model.data.sequences import EvaluationCases, Int64Array, SequenceDataset
from glintru_model.errors import DataError
from glintru_model.files import atomic_file
from glintru_model.layout import TRAINED_EVENTS_FILE

_BITS_DROPPED = np.uint64(8)  # a stranger among 10 million events is taken for one of them once in 7 thousand million
_COLUMN = "event"

UInt64Array = npt.NDArray[np.uint64]


def write_trained_events(dataset: SequenceDataset, directory: Path) -> Path:
    """Record the events of the training part; return the file.

    Raises:
        StorageError: the disk refused.
    """
    lengths = np.diff(dataset.offsets)
    within = np.arange(len(dataset.item_ids)) - np.repeat(dataset.offsets[:-1], lengths)
    trained = within < np.repeat(dataset.train_ends, lengths)
    hashes = np.unique(_event_hashes(dataset)[trained]).astype(np.int64)
    path = directory / TRAINED_EVENTS_FILE
    with atomic_file(path) as temporary:
        pq.write_table(
            pa.table({_COLUMN: hashes}),
            temporary,
            use_dictionary=False,
            column_encoding={_COLUMN: "DELTA_BINARY_PACKED"},
            compression="none",
        )
    return path


def count_trained(path: Path, dataset: SequenceDataset, cases: EvaluationCases) -> int:
    """Count the cases whose target is an event that the record holds.

    Args:
        path: what `write_trained_events` wrote, of this or of another dataset.
        dataset: the histories.
        cases: questions about them.

    Raises:
        DataError: the file is missing or is no such record.
    """
    try:
        trained = pq.read_table(path, columns=[_COLUMN]).column(_COLUMN).to_numpy()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"{path}: not a record of training events: {error}") from error
    if not len(trained):
        return 0
    targets = _event_hashes(dataset)[cases.history_ends].astype(np.int64)  # a target stands right after its history
    places = np.minimum(np.searchsorted(trained, targets), len(trained) - 1)
    return int((trained[places] == targets).sum())


def _event_hashes(dataset: SequenceDataset) -> UInt64Array:
    users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    user_hashes, item_hashes = _hash_ids(dataset.user_ids), _hash_ids(dataset.vocabulary.item_ids)
    with np.errstate(over="ignore"):
        occurrence = _occurrences(users, dataset.item_ids).astype(np.uint64)
        mixed = _mix(user_hashes[users] + _mix(item_hashes[dataset.item_ids - 1] + occurrence))
    return mixed >> _BITS_DROPPED


def _hash_ids(ids: pa.Array) -> UInt64Array:
    """Hash each id's text, so that 5 and "5" are one id."""
    digests = b"".join(hashlib.blake2b(str(value).encode(), digest_size=8).digest() for value in ids.to_pylist())
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _occurrences(users: Int64Array, items: npt.NDArray[np.int32]) -> Int64Array:
    """Count, for each event, the same user's earlier events of the same item."""
    pairs = users * (int(items.max(initial=0)) + 1) + items
    order = np.argsort(pairs, kind="stable")
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = np.diff(pairs[order]) != 0
    places = np.arange(len(order))
    counted = places - np.maximum.accumulate(np.where(is_first, places, 0))
    occurrences = np.empty_like(counted)
    occurrences[order] = counted
    return occurrences


def _mix(values: UInt64Array) -> UInt64Array:
    """Scramble 64 bits: the finaliser of splitmix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
