"""From clean interactions to sequences: order by time, split, index the items.

Ids are replaced by dense codes before the one large sort, so what is sorted (and spilled) is narrow; after it a
single pass streams the codes into a flat file that Arrow maps.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glintru_model.config import SequencesConfig
from glintru_model.data.engine import open_engine
from glintru_model.data.hashing import hash_batches
from glintru_model.data.interactions import INTERACTIONS_FILE, ITEMS_FILE
from glintru_model.data.sequences import MANIFEST_FILE, SEQUENCES_FILE, Int32Array, Int64Array
from glintru_model.data.splitting import assign_parts
from glintru_model.errors import DataError
from glintru_model.files import atomic_directory, read_json, write_json
from glintru_model.layout import DATA_REPORT_FILE, VOCABULARY_FILE

_ROWS_PER_CHUNK = 1_000_000


def build_sequences(interactions_dir: Path, output_dir: Path, config: SequencesConfig) -> dict[str, Any]:
    """Write `sequences.arrow`, `vocabulary.arrow` and `manifest.json`.

    Events are ordered by time within each user, ties in the log's order; users stand by ascending user_id. The
    same input gives the same bytes.

    `leave_one_out`: the last event of each user is the test target, the one before it the validation target; a
    user with fewer than 3 events is all training. Every item of the log is in the catalogue: one without a
    training event is a candidate (and a target) like any other, as in published results for this split.

    `temporal`: one cut in time for everyone. An item without a training event did not exist yet: it gets no
    index, and its events are left out of validation and test and counted in the manifest.

    Args:
        interactions_dir: what `ingest` wrote.
        output_dir: the directory to make (or replace).
        config: the split.

    Returns:
        The manifest.

    Raises:
        DataError: the interactions cannot be read, or the split leaves a part empty.
    """
    source = interactions_dir / INTERACTIONS_FILE
    if not source.is_file():
        raise DataError(f"{source}: no such file, expected the output of ingest")
    with atomic_directory(output_dir) as temporary, open_engine(temporary / "spill", str(source)) as connection:
        _order_events(connection, source)
        split = assign_parts(connection, config)
        _index_items(connection, split["split"], interactions_dir / ITEMS_FILE)
        return _write(connection, temporary, split, _source_of(interactions_dir))


def _order_events(connection: Any, source: Path) -> None:
    """Fill `users` (user_row, user_id, n), `items` (item_code, item_id) and `ordered`, the events in their order."""
    connection.read_parquet(str(source), file_row_number=True).create_view("log")
    connection.execute("""
        CREATE TABLE users AS
        SELECT row_number() OVER (ORDER BY user_id) - 1 AS user_row, user_id, n
        FROM (SELECT user_id, count(*) AS n FROM log GROUP BY user_id);
        CREATE TABLE items AS
        SELECT row_number() OVER (ORDER BY item_id) - 1 AS item_code, item_id
        FROM (SELECT DISTINCT item_id FROM log);
        CREATE TABLE ordered AS
        SELECT row_number() OVER () - 1 AS position, user_row, item_code, timestamp
        FROM (
            SELECT user_row::INTEGER AS user_row, item_code::INTEGER AS item_code, timestamp
            FROM log JOIN users USING (user_id) JOIN items USING (item_id)
            ORDER BY user_row, timestamp, file_row_number
        );
    """)


def _index_items(connection: Any, split: str, titles: Path) -> None:
    """Fill `vocabulary` from the training part: item_index, item_code, item_id, its counts, its title."""
    recent = connection.execute("""
        SELECT max(timestamp) FROM (
            SELECT timestamp, sum(n) OVER (ORDER BY timestamp DESC) AS newer, sum(n) OVER () AS total
            FROM (SELECT timestamp, count(*) AS n FROM parts WHERE part = 0 GROUP BY timestamp)
        ) WHERE newer * 10 >= total
    """).fetchall()[0][0]
    connection.execute(
        """
        CREATE TABLE vocabulary AS
        SELECT row_number() OVER (ORDER BY train_count DESC, item_id) AS item_index, item_code, item_id,
               train_count, recent_train_count
        FROM (
            SELECT item_code, count(*) FILTER (part = 0) AS train_count,
                   count(*) FILTER (part = 0 AND timestamp >= ?) AS recent_train_count
            FROM parts GROUP BY item_code
        ) JOIN items USING (item_code)
        WHERE train_count > 0 OR ? = 'leave_one_out'
        """,
        [recent, split],
    )
    if titles.is_file():
        connection.read_parquet(str(titles)).create_view("titles")
        connection.execute("""
            ALTER TABLE vocabulary ADD COLUMN title VARCHAR;
            UPDATE vocabulary SET title = titles.title FROM titles WHERE titles.item_id = vocabulary.item_id;
        """)


def _write(connection: Any, directory: Path, split: dict[str, Any], source: str) -> dict[str, Any]:
    vocabulary = _vocabulary_batch(connection)
    users, dropped = _users_left(connection)
    lengths = _numpy(users, "n")
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    values = _stream_indices(connection, directory / "item_ids.bin", int(offsets[-1]))
    sequences = pa.record_batch(
        {
            "user_id": _one_chunk(users, "user_id"),
            "item_ids": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)),
            "train_end": _one_chunk(users, "train_end"),
            "validation_end": _one_chunk(users, "validation_end"),
        }
    )
    train_ends, validation_ends = _numpy(users, "train_end"), _numpy(users, "validation_end")
    manifest = {
        "num_users": len(lengths),
        "num_items": vocabulary.num_rows,
        "num_interactions": int(offsets[-1]),
        "num_train": int(train_ends.sum()),
        "num_validation": int((validation_ends - train_ends).sum()),
        "num_test": int((lengths - validation_ends).sum()),
        **dropped,
        **split,
        "dataset_hash": hash_batches(sequences, vocabulary),
        "source": source,
    }
    _refuse_empty_parts(manifest)
    _write_batch(directory / SEQUENCES_FILE, sequences)
    _write_batch(directory / VOCABULARY_FILE, vocabulary)
    write_json(directory / MANIFEST_FILE, manifest)
    (directory / "item_ids.bin").unlink()
    return manifest


def _vocabulary_batch(connection: Any) -> pa.RecordBatch:
    table = connection.sql("SELECT * EXCLUDE (item_code) FROM vocabulary ORDER BY item_index").to_arrow_table()
    names = [name for name in table.column_names if name != "item_index"]
    return pa.record_batch({name: _one_chunk(table, name) for name in names})


def _users_left(connection: Any) -> tuple[pa.Table, dict[str, int]]:
    """Count each user's events of indexed items; returns (users in order, what was left out)."""
    connection.execute("""
        CREATE TABLE histories AS
        SELECT user_row, count(*) FILTER (known) AS n, count(*) FILTER (known AND part = 0) AS train_end,
               count(*) FILTER (known AND part <= 1) AS validation_end,
               count(*) FILTER (NOT known AND part = 1) AS cold_validation,
               count(*) FILTER (NOT known AND part = 2) AS cold_test
        FROM (SELECT user_row, part, item_index IS NOT NULL AS known
              FROM parts LEFT JOIN vocabulary USING (item_code))
        GROUP BY user_row
    """)
    users = connection.sql("""
        SELECT user_id, h.n, train_end, validation_end FROM histories h JOIN users USING (user_row)
        WHERE h.n > 0 ORDER BY user_row
    """).to_arrow_table()
    names = ("num_cold_items", "num_cold_users", "num_dropped_users", "num_dropped_validation", "num_dropped_test")
    found = connection.execute("""
        SELECT (SELECT count(*) FROM (SELECT item_code FROM parts GROUP BY item_code HAVING min(part) > 0)),
               count(*) FILTER (n > 0 AND train_end = 0), count(*) FILTER (n = 0),
               coalesce(sum(cold_validation), 0), coalesce(sum(cold_test), 0)
        FROM histories
    """).fetchall()[0]
    return users, {name: int(count) for name, count in zip(names, found, strict=True)}


def _stream_indices(connection: Any, path: Path, total: int) -> Int32Array:
    """Write every history's item indices one after another; returns the file, mapped."""
    table = connection.sql("SELECT item_code, item_index FROM vocabulary").to_arrow_table()
    num_codes = connection.execute("SELECT count(*) FROM items").fetchall()[0][0]
    index_of_code = np.zeros(num_codes, dtype=np.int32)
    index_of_code[_numpy(table, "item_code")] = _numpy(table, "item_index")
    with path.open("wb") as file:
        for codes in _code_chunks(connection):
            indices = index_of_code[codes]
            indices[indices > 0].tofile(file)
    return np.memmap(path, dtype=np.int32, mode="r", shape=(total,))


def _code_chunks(connection: Any) -> Iterator[Int32Array]:
    reader = connection.sql("SELECT item_code FROM ordered ORDER BY position").to_arrow_reader(_ROWS_PER_CHUNK)
    for batch in reader:
        yield batch.column(0).to_numpy()


def _refuse_empty_parts(manifest: dict[str, Any]) -> None:
    for part in ("validation", "test"):
        if manifest[f"num_{part}"] == 0:
            reason = (
                "no user has 3 events or more"
                if manifest["split"] == "leave_one_out"
                else f"cuts at {manifest['validation_cut']} and {manifest['test_cut']}"
            )
            raise DataError(
                f"split {manifest['split']!r}: the {part} part is empty ({reason}; {manifest['num_users']} users, "
                f"{manifest['num_interactions']} interactions)"
            )


def _source_of(interactions_dir: Path) -> str:
    path = interactions_dir / DATA_REPORT_FILE
    return str(read_json(path)["source"]["description"]) if path.is_file() else "unknown"


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    return pa.concat_arrays(table.column(name).chunks) if table.num_rows else table.column(name).combine_chunks()


def _numpy(table: pa.Table, name: str) -> Int64Array:
    values: Int64Array = table.column(name).to_numpy()
    return values


def _write_batch(path: Path, batch: pa.RecordBatch) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
