"""What makes a log usable: ids and times checked and typed, then the filters, each with its counts."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glintru_model.config import IngestConfig
from glintru_model.data.formats import OpenLog
from glintru_model.errors import DataError

INTERACTIONS_FILE = "interactions.parquet"
ITEMS_FILE = "items.parquet"

_INTEGER_TYPES = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}
_TIME_TYPES = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "DATE"}
_MAX_EXACT_FLOAT, _MAX_EXACT_DOUBLE = 2**24, 2**53  # beyond these not every whole number exists
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


@dataclass(frozen=True)
class Step:
    """What was left after one step of the cleaning."""

    step: str
    num_users: int
    num_items: int
    num_interactions: int


def read_events(connection: Any, log: OpenLog) -> None:
    """Fill the table `events` from the view `log`: log_order, user_id, item_id, timestamp and, if any, rating.

    Ids become int64 where all of them are whole numbers, else strings; timestamps become int64, or float64 where one
    has a fraction. `log_order` counts the rows from 0.

    Raises:
        DataError: an id or a time is missing or is no such thing; it names the file, the row and the value.
    """
    import duckdb

    connection.execute("""
        CREATE TABLE raw AS
        SELECT row_number() OVER () - 1 AS log_order, * EXCLUDE (file) FROM log
    """)
    if connection.execute("SELECT count(*) FROM raw").fetchall()[0][0] == 0:
        raise DataError(f"{_shown(log.files)}: no interactions, the file is empty")
    raw = connection.table("raw")
    types = dict(zip(raw.columns, map(str, raw.types), strict=True))
    reader = _Reader(connection, log, types)
    typed = {
        "user_id": reader.id_expression("user_id"),
        "item_id": reader.id_expression("item_id"),
        "timestamp": reader.timestamp_expression(),
    }
    if log.has_rating:
        typed["rating"] = reader.rating_expression()
    expressions = [duckdb.SQLExpression(sql).alias(name) for name, sql in typed.items()]
    raw.select(duckdb.ColumnExpression("log_order"), *expressions).create("events")
    connection.execute("DROP TABLE raw")


def clean_events(connection: Any, config: IngestConfig, min_count: int) -> list[Step]:
    """Filter `events` in place; returns what was left after each step, beginning with the log as read.

    Args:
        connection: a DuckDB connection with `events`.
        config: the filters.
        min_count: users and items below it in the whole log are left out first (0: none).

    Raises:
        DataError: nothing is left after a step; it says what was there before.
    """
    steps = [_count(connection, "read")]
    if min_count:
        _drop_rare(connection, min_count)
        _add_step(connection, steps, f"users and items of {min_count} or more, counted once")
    if config.min_rating is not None:
        connection.execute(
            "DELETE FROM events WHERE rating IS NULL OR isnan(rating) OR rating < ?", [config.min_rating]
        )
        _add_step(connection, steps, f"min_rating {config.min_rating:g}")
    if config.duplicates != "keep":
        _drop_duplicates(connection, config.duplicates)
        _add_step(connection, steps, f"duplicates {config.duplicates}")
    if config.k_core > 1:
        while _drop_rare(connection, config.k_core):
            pass
        _add_step(connection, steps, f"k_core {config.k_core}")
    return steps


def write_events(connection: Any, path: Path) -> None:
    """Write `events` as Parquet, in the log's order."""
    events = connection.sql("SELECT * EXCLUDE (log_order) FROM (FROM events ORDER BY log_order)")
    events.write_parquet(str(path), compression="zstd")


def write_titles(connection: Any, path: Path) -> None:
    """Write the titles of the items of `events` (item_id, title), by item_id, from the view `all_titles`."""
    connection.execute("""
        CREATE TABLE titles AS
        SELECT DISTINCT ON (item_id) item_id, title
        FROM (SELECT DISTINCT item_id FROM events) AS items
        JOIN (SELECT item_id AS text_id, title FROM all_titles) ON CAST(items.item_id AS VARCHAR) = text_id
        ORDER BY item_id, title
    """)
    connection.table("titles").write_parquet(str(path), compression="zstd")


class _Reader:
    """Chooses each column's type after a look at the whole of it, and refuses the first value that does not fit."""

    def __init__(self, connection: Any, log: OpenLog, types: dict[str, str]) -> None:
        self._connection, self._log, self._types = connection, log, types

    def id_expression(self, column: str) -> str:
        kind = self._types[column]
        self._refuse(column, f"{column} IS NULL OR CAST({column} AS VARCHAR) = ''", "it is missing")
        if kind in _INTEGER_TYPES:
            if kind in {"UBIGINT", "HUGEINT"}:
                self._refuse(column, f"TRY_CAST({column} AS BIGINT) IS NULL", "expected at most 64 bits")
            return f"CAST({column} AS BIGINT)"
        if kind in {"FLOAT", "DOUBLE"}:
            not_whole = f"NOT isfinite({column}) OR {column} <> trunc({column}) OR abs({column}) > {_MAX_EXACT_DOUBLE}"
            self._refuse(column, not_whole, "expected whole numbers or text")
            return f"CAST({column} AS BIGINT)"
        if kind not in {"VARCHAR", "UUID"} and not kind.startswith("ENUM"):
            raise DataError(f"{_shown(self._log.files)}: {column} is of type {kind}, expected whole numbers or text")
        # Only a number written in the one usual way: '007' and '7' stay two ids.
        usual = f"regexp_full_match({column}, '0|-?[1-9][0-9]*') AND TRY_CAST({column} AS BIGINT) IS NOT NULL"
        if self._log.is_text and self._all(usual):
            return f"CAST({column} AS BIGINT)"
        return f"CAST({column} AS VARCHAR)"

    def timestamp_expression(self) -> str:
        kind = self._types["timestamp"]
        self._refuse("timestamp", "timestamp IS NULL", "it is missing")
        if kind in _TIME_TYPES:
            value = "epoch_us(timestamp)" if kind != "DATE" else "epoch_us(CAST(timestamp AS TIMESTAMP))"
            self._refuse("timestamp", f"{value} < 0", "expected no time before 1970")
            whole = self._all(f"{value} % 1000000 = 0")
            return f"{value} // 1000000" if whole else f"{value} / 1000000.0"
        if kind == "VARCHAR":
            not_number = f"NOT regexp_full_match(timestamp, '{_NUMBER}')"
            self._refuse("timestamp", not_number, "expected Unix seconds")
            digits = "regexp_full_match(timestamp, '[+-]?[0-9]+')"
            too_large = f"{digits} AND TRY_CAST(timestamp AS BIGINT) IS NULL"
            self._refuse("timestamp", too_large, "expected at most 64 bits")
            value = f"CAST(timestamp AS {'BIGINT' if self._all(digits) else 'DOUBLE'})"
        elif kind in _INTEGER_TYPES:
            self._refuse("timestamp", "TRY_CAST(timestamp AS BIGINT) IS NULL", "expected at most 64 bits")
            value = "CAST(timestamp AS BIGINT)"
        elif kind in {"FLOAT", "DOUBLE"} or kind.startswith("DECIMAL"):
            value = "CAST(timestamp AS DOUBLE)"
            self._refuse("timestamp", f"NOT isfinite({value})", "expected Unix seconds")
        else:
            raise DataError(f"{_shown(self._log.files)}: timestamp is of type {kind}, expected Unix seconds")
        if kind == "FLOAT":
            rounded = f"timestamp >= {_MAX_EXACT_FLOAT}"
            self._refuse("timestamp", rounded, "32-bit floats round times of this size, expected int64 or float64")
        self._refuse("timestamp", f"{value} < 0", "expected no negative time")
        if "DOUBLE" in value and self._all(f"{value} = trunc({value}) AND {value} <= {_MAX_EXACT_DOUBLE}"):
            return f"CAST({value} AS BIGINT)"
        return value

    def rating_expression(self) -> str:
        if self._types["rating"] == "VARCHAR":
            not_number = f"rating IS NOT NULL AND NOT regexp_full_match(rating, '{_NUMBER}')"
            self._refuse("rating", not_number, "expected a number")
        return "CAST(rating AS DOUBLE)"

    def _all(self, condition: str) -> bool:
        from duckdb import SQLExpression

        raw = self._connection.table("raw")
        return bool(raw.aggregate([SQLExpression(f"bool_and({condition})")]).fetchall()[0][0])

    def _refuse(self, column: str, condition: str, allowed: str) -> None:
        """Raise for the first row of which the condition is true."""
        from duckdb import SQLExpression

        raw = self._connection.table("raw").filter(SQLExpression(condition))
        bad = raw.order("log_order").limit(1).select("log_order", column).fetchall()
        if bad:
            row, value = bad[0]
            found = "" if value is None or value == "" else f" is {value!r}"
            raise DataError(f"{self._place(row)}: {column}{found}{',' if found else ':'} {allowed}")

    def _place(self, row: int) -> str:
        """Name the file and the row in it (from 1, a header not counted)."""
        files = self._log.files
        if len(files) > 1:
            counted = self._connection.sql("SELECT file, count(*) FROM log GROUP BY file").fetchall()
            sizes = {Path(file): count for file, count in counted}
            for path in files:
                size = sizes.get(path, 0)
                if row < size:
                    return f"{path}: row {row + 1}"
                row -= size
        return f"{files[0]}: row {row + 1}"


def _drop_duplicates(connection: Any, keep: str) -> None:
    """Keep one event of each user and item: the first or the last by time, ties by the log's order."""
    connection.execute(
        """
        CREATE TABLE kept AS SELECT * FROM events
        QUALIFY row_number() OVER (
            PARTITION BY user_id, item_id
            ORDER BY CASE WHEN $keep = 'first' THEN timestamp END, CASE WHEN $keep = 'first' THEN log_order END,
                     timestamp DESC, log_order DESC
        ) = 1
        """,
        {"keep": keep},
    )
    _replace_events(connection)


def _drop_rare(connection: Any, least: int) -> bool:
    """Drop the users and items that have fewer events than `least` now; returns whether there were any."""
    before = connection.execute("SELECT count(*) FROM events").fetchall()[0][0]
    connection.execute(
        """
        CREATE TABLE kept AS SELECT * FROM events
        SEMI JOIN (SELECT user_id FROM events GROUP BY user_id HAVING count(*) >= $least) USING (user_id)
        SEMI JOIN (SELECT item_id FROM events GROUP BY item_id HAVING count(*) >= $least) USING (item_id)
        """,
        {"least": least},
    )
    _replace_events(connection)
    return bool(connection.execute("SELECT count(*) FROM events").fetchall()[0][0] < before)


def _replace_events(connection: Any) -> None:
    connection.execute("DROP TABLE events; ALTER TABLE kept RENAME TO events")


def _add_step(connection: Any, steps: list[Step], name: str) -> None:
    left = _count(connection, name)
    if left.num_interactions == 0:
        before = steps[-1]
        raise DataError(
            f"no user is left after {name!r}: before it there were {before.num_users:,} users, "
            f"{before.num_items:,} items and {before.num_interactions:,} interactions"
        )
    steps.append(left)


def _count(connection: Any, name: str) -> Step:
    counted = connection.execute(
        "SELECT count(DISTINCT user_id), count(DISTINCT item_id), count(*) FROM events"
    ).fetchall()[0]
    return Step(name, *counted)


def counts_of(step: Step) -> dict[str, int]:
    """Take a step's three counts without its name."""
    return {name: value for name, value in asdict(step).items() if name != "step"}


def _shown(files: tuple[Path, ...]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
