"""Recommendations for every user of a Parquet file, streamed into another one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glintru_model.data.engine import literal, open_engine
from glintru_model.errors import DataError, InputError
from glintru_model.files import atomic_file
from glintru_model.progress import Progress, say
from glintru_model.serving.recommender import Int32Array, Recommender, Top

_LOG_COLUMNS = ("user_id", "item_id", "timestamp")
_HISTORY_COLUMNS = ("user_id", "history")
_ENGINE_MEMORY_GIB = 4.0
_USERS_AT_ONCE = 16_384
_NO_ITEMS = np.empty(0, dtype=np.int32)


def recommend_file(
    recommender: Recommender, source: Path, output: Path, *, k: int = 10, filter_seen: bool = True
) -> int:
    """Recommend for every user of a file, some thousand users in memory at a time.

    Args:
        recommender: the model.
        source: Parquet with `user_id` and `history` (a list of item ids, oldest first), or an interaction log with
            `user_id`, `item_id` and `timestamp` (ties keep the log's order).
        output: Parquet to write, whole or not at all: `user_id`, `item_ids`, `scores`, `num_unknown_items`,
            `ranked_by`.
        k: items for each user, 1..V.
        filter_seen: leave out what a user has had.

    Returns:
        The number of users.

    Raises:
        InputError: the file, its columns or k cannot be used.
        StorageError: the disk refused.
    """
    recommender.check(k, filter_seen)
    if source.resolve() == output.resolve():
        raise InputError(f"{output}: is the input itself, name another file for the output")
    done, popular = 0, 0
    with _histories(source, output) as (total, batches), atomic_file(output) as temporary:
        writer: pq.ParquetWriter | None = None
        progress = Progress("recommend", total, "users")
        for batch in batches:
            table, num_popular = _answers(recommender, batch, k, filter_seen=filter_seen)
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
            done, popular = done + len(table), popular + num_popular
            progress.update(done, force=done == total)
        if writer is None:
            raise DataError(f"{source}: no user in it, at least 1 is needed")
        writer.close()
    say(f"{done:,} users, {popular:,} of them without a known item: popularity answered")
    return done


def _answers(recommender: Recommender, batch: pa.RecordBatch, k: int, *, filter_seen: bool) -> tuple[pa.Table, int]:
    histories = _indices(recommender, batch.column("history"))
    parts, unknown = [], np.array([(history == 0).sum() for history in histories], dtype=np.int64)
    for begin in range(0, len(histories), recommender.batch_size):
        rows = histories[begin : begin + recommender.batch_size]
        parts.append(recommender.top(rows, k, filter_seen=filter_seen, excluded=_NO_ITEMS))
    by_model = np.concatenate([part.by_model for part in parts])
    lists = [_lists(recommender, part) for part in parts]
    table = pa.table(
        {
            "user_id": batch.column("user_id"),
            "item_ids": pa.concat_arrays([ids for ids, _ in lists]),
            "scores": pa.concat_arrays([scores for _, scores in lists]),
            "num_unknown_items": unknown,
            "ranked_by": pa.array(np.where(by_model, "model", "popularity").tolist()),
        }
    )
    return table, int((~by_model).sum())


def _lists(recommender: Recommender, top: Top) -> tuple[pa.Array, pa.Array]:
    found = top.items > 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(found.sum(axis=1))]).astype(np.int32))
    item_ids = recommender.vocabulary.item_ids.take(pa.array(top.items[found] - 1))
    return pa.ListArray.from_arrays(offsets, item_ids), pa.ListArray.from_arrays(offsets, pa.array(top.scores[found]))


def _indices(recommender: Recommender, histories: Any) -> list[Int32Array]:
    """Map a list column to item indices in one go; a null list is an empty history."""
    values = histories.flatten()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    is_number, is_text = pa.types.is_integer(values.type), _is_text(values.type)
    if not (is_number if recommender.integer_ids else is_text) and not pa.types.is_null(values.type):
        expected = "whole numbers" if recommender.integer_ids else "text"
        raise InputError(f"item ids in the file are {values.type}, item ids of this model are {expected}")
    flat = recommender.vocabulary.index_of(values)
    lengths = np.nan_to_num(histories.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    return np.split(flat, np.cumsum(lengths)[:-1])


@contextmanager
def _histories(source: Path, output: Path) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
    """Yield the number of users and their (user_id, history) in batches."""
    if _holds_histories(source):
        file = pq.ParquetFile(source)
        batches = file.iter_batches(_USERS_AT_ONCE, columns=list(_HISTORY_COLUMNS))
        yield file.metadata.num_rows, _readable(source, batches)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as spill,
        open_engine(Path(spill), str(source), _ENGINE_MEMORY_GIB) as connection,
    ):
        log = connection.read_parquet(literal(source), file_row_number=True)
        log.create_view("log")
        total = log.aggregate("count(DISTINCT user_id)").fetchall()[0][0]
        found = connection.sql(
            "SELECT user_id, list(item_id ORDER BY timestamp, file_row_number) AS history FROM log "
            "GROUP BY user_id ORDER BY user_id"
        )
        yield int(total), iter(found.to_arrow_reader(_USERS_AT_ONCE))


def _readable(source: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Tell a failure to read from one to write, which the caller takes any other for."""
    try:
        yield from batches
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{source}: damaged: {str(error).splitlines()[0]}") from error


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _holds_histories(source: Path) -> bool:
    """Say which of the two forms the file has; refuse any other."""
    try:
        schema = pq.read_schema(source)
    except OSError as error:
        raise InputError(f"{source}: cannot read: {error}") from error
    except pa.ArrowException as error:
        raise InputError(f"{source}: not a Parquet file: {error}") from error
    if set(_HISTORY_COLUMNS) <= set(schema.names):
        kind = schema.field("history").type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise InputError(f"{source}: column 'history' is {kind}, expected a list of item ids")
        return True
    if set(_LOG_COLUMNS) <= set(schema.names):
        return False
    wanted = f"{', '.join(_HISTORY_COLUMNS)} or {', '.join(_LOG_COLUMNS)}"
    raise InputError(f"{source}: columns {', '.join(schema.names)}; expected {wanted}")
