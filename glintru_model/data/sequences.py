"""Item sequences in memory: one flat array of item indices and where each user's part of it begins.

An Arrow list array is this layout already, so a file is mapped, not read, and nothing is copied.
Arrays may be read-only views of the mapped files.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from glintru_model.errors import DataError
from glintru_model.files import read_json
from glintru_model.layout import VOCABULARY_FILE

PADDING_ID = 0
SEQUENCES_FILE = "sequences.arrow"
MANIFEST_FILE = "manifest.json"

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
EvaluationSplit = Literal["validation", "test"]
EvaluationTargets = Literal["last", "successive"]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The catalogue: row i holds the item of index i + 1 (index 0 is padding).

    Items stand by frequency in the training part, descending, ties by item_id ascending.

    Attributes:
        item_ids: the log's own ids, int64 or string, (V,).
        train_counts: training events of each item, (V,).
        recent_train_counts: those within the most recent tenth of all training events, (V,).
        titles: a string or null per item, (V,); None where the log came without titles.
    """

    item_ids: pa.Array
    train_counts: Int64Array
    recent_train_counts: Int64Array
    titles: pa.Array | None = None

    @property
    def num_items(self) -> int:
        """Size of the catalogue, without padding."""
        return len(self.item_ids)

    def index_of(self, item_ids: pa.Array | list[Any]) -> Int32Array:
        """Map the log's ids to item indices.

        Args:
            item_ids: ids, (N,); text is understood where the log's ids are integers, and the other way round.

        Returns:
            Indices 1..V, (N,); 0 where the id is unknown or null.
        """
        wanted = _as_type(item_ids, self.item_ids.type)
        rows = pc.fill_null(pc.index_in(wanted, value_set=self.item_ids), -1)
        return np.asarray(rows.to_numpy(zero_copy_only=False), dtype=np.int32) + np.int32(1)


@dataclass(frozen=True, eq=False)
class EvaluationCases:
    """Next-item questions, one row per (user, target): given the history, where does the target rank?

    Attributes:
        user_rows: the user's row in the dataset, (C,).
        history_starts, history_ends: the history's range in `SequenceDataset.item_ids`, (C,).
        targets: index of the item that came next, (C,).
    """

    user_rows: Int64Array
    history_starts: Int64Array
    history_ends: Int64Array
    targets: Int32Array

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, rows: slice | Int64Array) -> "EvaluationCases":
        """Take some of the cases, by slice or by row numbers."""
        return EvaluationCases(
            self.user_rows[rows], self.history_starts[rows], self.history_ends[rows], self.targets[rows]
        )


@dataclass(frozen=True, eq=False)
class SequenceDataset:
    """Every user's history in time order, and where its training and validation parts end.

    User u's history is `item_ids[offsets[u]:offsets[u + 1]]`; its first `train_ends[u]` events are for training,
    the next ones up to `validation_ends[u]` are validation targets, the rest are test targets.

    Attributes:
        user_ids: the log's own ids, ascending, (U,).
        offsets: (U + 1,).
        item_ids: item indices 1..V, (N,).
        train_ends, validation_ends: counts of events from the history's start, (U,).
        vocabulary: the catalogue.
        manifest: counts, split settings and `dataset_hash`, as `manifest.json` holds them.
    """

    user_ids: pa.Array
    offsets: Int64Array
    item_ids: Int32Array
    train_ends: Int64Array
    validation_ends: Int64Array
    vocabulary: Vocabulary
    manifest: dict[str, Any]

    @property
    def num_users(self) -> int:
        """Number of histories."""
        return len(self.train_ends)

    @property
    def num_items(self) -> int:
        """Size of the catalogue, without padding."""
        return self.vocabulary.num_items

    def cases(self, split: EvaluationSplit, targets: EvaluationTargets = "last") -> EvaluationCases:
        """Ask for events of that part of each user, each given everything before it.

        An event without any event before it is no target.

        Args:
            split: the part.
            targets: its last event alone, or each of its events in turn.
        """
        if split == "validation":
            begins, ends = self.train_ends, self.validation_ends
        else:
            begins, ends = self.validation_ends, np.diff(self.offsets)
        first = np.maximum(begins, 1) if targets == "successive" else np.maximum(ends - 1, np.maximum(begins, 1))
        counts = np.maximum(ends - first, 0)
        users = np.repeat(np.arange(self.num_users), counts)
        starts = self.offsets[users]
        nth = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = starts + first[users] + nth
        return EvaluationCases(users, starts, positions, self.item_ids[positions])


def load_sequences(directory: Path) -> SequenceDataset:
    """Map the files that `build_sequences` wrote.

    Raises:
        DataError: a file is missing or is not what the manifest says.
    """
    manifest = read_json(directory / MANIFEST_FILE)
    batch = _map_batch(directory / SEQUENCES_FILE, ("user_id", "item_ids", "train_end", "validation_end"))
    vocabulary = load_vocabulary(directory / VOCABULARY_FILE)
    histories = batch.column("item_ids")
    dataset = SequenceDataset(
        user_ids=batch.column("user_id"),
        offsets=histories.offsets.to_numpy(),
        item_ids=histories.values.to_numpy(),
        train_ends=batch.column("train_end").to_numpy(),
        validation_ends=batch.column("validation_end").to_numpy(),
        vocabulary=vocabulary,
        manifest=manifest,
    )
    found = {
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
        "num_interactions": len(dataset.item_ids),
    }
    for key, value in found.items():
        if manifest.get(key) != value:
            raise DataError(f"{directory}: {key} is {value}, {MANIFEST_FILE} says {manifest.get(key)}")
    _refuse_ends_outside(dataset, directory)
    return dataset


def _refuse_ends_outside(dataset: SequenceDataset, directory: Path) -> None:
    """A part that reached beyond its history would be made of the next user's events."""
    lengths = np.diff(dataset.offsets)
    ends = np.stack([np.zeros_like(lengths), dataset.train_ends, dataset.validation_ends, lengths])
    wrong = np.flatnonzero((np.diff(ends, axis=0) < 0).any(axis=0))
    if len(wrong):
        _, train_end, validation_end, length = ends[:, wrong[0]].tolist()
        raise DataError(
            f"{directory}: user {wrong[0]}: train_end {train_end}, validation_end {validation_end}, expected "
            f"0 <= train_end <= validation_end <= {length}, the history's length"
        )


def load_vocabulary(path: Path) -> Vocabulary:
    """Map a vocabulary file.

    Raises:
        DataError: the file is missing or is not a vocabulary.
    """
    batch = _map_batch(path, ("item_id", "train_count", "recent_train_count"))
    return Vocabulary(
        item_ids=batch.column("item_id"),
        train_counts=batch.column("train_count").to_numpy(),
        recent_train_counts=batch.column("recent_train_count").to_numpy(),
        titles=batch.column("title") if "title" in batch.schema.names else None,
    )


def _map_batch(path: Path, columns: tuple[str, ...]) -> pa.RecordBatch:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.num_record_batches != 1:
            raise DataError(f"{path}: found {reader.num_record_batches} record batches, expected 1")
        batch = reader.get_batch(0)
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error}") from error
    except pa.ArrowException as error:
        raise DataError(f"{path}: not an Arrow file: {error}") from error
    missing = [name for name in columns if name not in batch.schema.names]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}, found {', '.join(batch.schema.names)}")
    return batch


def _as_type(item_ids: pa.Array | list[Any], wanted: pa.DataType) -> pa.Array:
    if isinstance(item_ids, list):
        try:
            item_ids = pa.array(item_ids, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # a list of mixed types
            item_ids = pa.array([None if item is None else str(item) for item in item_ids], pa.string())
    with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):  # not as a whole: id by id then
        return item_ids.cast(wanted)
    primitive = pa.types.is_string(item_ids.type) or pa.types.is_floating(item_ids.type)
    if not (primitive and pa.types.is_integer(wanted)):
        return pa.nulls(len(item_ids), wanted)
    text = item_ids.cast(pa.string())
    numbers = pc.if_else(pc.match_substring_regex(text, r"^-?\d{1,18}$"), text, None)
    return numbers.cast(wanted)
