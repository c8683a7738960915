"""Interactions with their ids replaced by dense codes, so that everything after counts and sorts small integers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glintru_model.data.columns import ColumnFile
from glintru_model.data.engine import literal, one_row, stream
from glintru_model.errors import DataError

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class OrderedEvents:
    """Events sorted by user, then time, then place in the log.

    Attributes:
        lengths: events of each user code, (U,).
        codes, times: item code and time (as `CodedLog.time_key`) of each event.
    """

    lengths: Int64Array
    codes: ColumnFile
    times: ColumnFile


class CodedLog:
    """A clean log in DuckDB. Codes go by ascending id, from 0.

    Times are handled as int64 keys of the same order: whole numbers as they are, fractional ones by their bits (which
    order floats that are not negative).

    Attributes:
        users, items: the ids of codes 0..., as Arrow arrays.
        total: number of events.
        first, last: the time keys' range.
    """

    def __init__(self, connection: Any, source: Path) -> None:
        """Open the file and number its ids."""
        self._connection = connection
        view = connection.read_parquet(literal(source), file_row_number=True)
        kinds = dict(zip(view.columns, map(str, view.types), strict=True))
        missing = [name for name in ("user_id", "item_id", "timestamp") if name not in kinds]
        if missing:
            raise DataError(f"{source}: no column {missing[0]!r}, found: {', '.join(kinds)}")
        self.is_fractional = kinds["timestamp"] in {"FLOAT", "DOUBLE"} or kinds["timestamp"].startswith("DECIMAL")
        # Adding 0 turns a negative zero, whose bits would stand last, into zero.
        time = "CAST(timestamp AS DOUBLE) + 0.0" if self.is_fractional else "CAST(timestamp AS BIGINT)"
        view.select(f"user_id, item_id, {time} AS timestamp, file_row_number").create_view("log")
        self.users, self.items = self._number("user"), self._number("item")
        self.total, first, last = one_row(connection, "SELECT count(*), min(timestamp), max(timestamp) FROM log")
        self.first, self.last = (self.time_key(value or 0) for value in (first, last))

    @property
    def held_bytes(self) -> int:
        """Memory that the ids, those of them that are chosen, and three counters of each take."""
        return 2 * int(self.users.nbytes + self.items.nbytes) + 24 * (len(self.users) + len(self.items))

    def time_key(self, time: float) -> int:
        """Return the key of a time in the log's unit."""
        return int(np.float64(time).view(np.int64)) if self.is_fractional else int(time)

    def time_of(self, key: int) -> float:
        """Return the time of a key."""
        return float(np.int64(key).view(np.float64)) if self.is_fractional else key

    def time_keys(self) -> Iterator[Int64Array]:
        """Yield every event's time key, in chunks."""
        for batch in stream(self._connection, "SELECT timestamp FROM log"):
            yield self._keys(batch.column(0))

    def count_until(self, key: int) -> int:
        """Count the events at a time or before it."""
        until = self.time_of(key)
        return int(one_row(self._connection, "SELECT count(*) FROM log WHERE timestamp <= $until", {"until": until})[0])

    def write_pairs(self, directory: Path, until: int | None) -> tuple[ColumnFile, ColumnFile, int]:
        """Write the user code and the item code of each event at `until` or before; returns both and their number."""
        where = "" if until is None else f"WHERE timestamp <= {self.time_of(until)!r}"
        query = f"""SELECT user_code, item_code FROM log JOIN user_codes USING (user_id) JOIN item_codes USING (item_id)
                    {where}"""
        users, items = ColumnFile(directory / "users.bin", np.int32), ColumnFile(directory / "items.bin", np.int32)
        count = 0
        with users.path.open("wb") as user_file, items.path.open("wb") as item_file:
            for batch in stream(self._connection, query, "count events", self.total):
                user_file.write(batch.column(0).to_numpy().data)
                item_file.write(batch.column(1).to_numpy().data)
                count += batch.num_rows
        return users, items, count

    def sort(self, directory: Path, core: tuple[BoolArray, BoolArray] | None) -> OrderedEvents:
        """Write the events of the chosen users and items, sorted."""
        if core is not None:
            for name, ids, chosen in (("user", self.users, core[0]), ("item", self.items, core[1])):
                rows = pa.table({f"{name}_code": np.flatnonzero(chosen).astype(np.int32)})
                rows = rows.append_column(f"{name}_id", ids.filter(pa.array(chosen)))
                self._connection.execute(f"DROP TABLE {name}_codes")
                self._connection.from_arrow(rows).create(f"{name}_codes")
                del rows  # the sort needs its memory
        query = """SELECT user_code, item_code, timestamp
                   FROM log JOIN user_codes USING (user_id) JOIN item_codes USING (item_id)
                   ORDER BY user_code, timestamp, file_row_number"""
        codes, times = ColumnFile(directory / "codes.bin", np.int32), ColumnFile(directory / "times.bin", np.int64)
        lengths = np.zeros(len(self.users), dtype=np.int64)
        with codes.path.open("wb") as code_file, times.path.open("wb") as time_file:
            for batch in stream(self._connection, query, "sort", self.total):
                users = batch.column(0).to_numpy()
                first, last = int(users[0]), int(users[-1])
                lengths[first : last + 1] += np.bincount(users - first, minlength=last - first + 1)
                code_file.write(batch.column(1).to_numpy().data)
                time_file.write(self._keys(batch.column(2)).data)
        return OrderedEvents(lengths, codes, times)

    def _number(self, name: str) -> pa.Array:
        self._connection.execute(f"""
            CREATE TABLE {name}_codes AS
            SELECT CAST(row_number() OVER (ORDER BY {name}_id) - 1 AS INTEGER) AS {name}_code, {name}_id
            FROM (SELECT DISTINCT {name}_id FROM log)
        """)
        ordered = self._connection.sql(f"SELECT {name}_id FROM {name}_codes ORDER BY {name}_code").to_arrow_table()
        return ordered.column(0).combine_chunks()

    def _keys(self, times: pa.Array) -> Int64Array:
        keys: Int64Array = times.to_numpy().view(np.int64)
        return keys
