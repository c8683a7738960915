"""What makes a log usable: ids and times checked and typed, then the filters, each with its counts."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glintru_model.config import IngestConfig, seconds_of
from glintru_model.data.engine import literal, one_row, watched
from glintru_model.data.formats import OpenLog, place_of
from glintru_model.data.rules import UNIT_NAMES, Answers, ColumnRule, id_rule, rating_rule, timestamp_rule
from glintru_model.errors import DataError
from glintru_model.layout import INTERACTIONS_FILE, ITEMS_FILE

__all__ = ["INTERACTIONS_FILE", "ITEMS_FILE", "Cleaning", "ReadLog", "Step", "counts_of", "read_events", "write_titles"]


@dataclass(frozen=True)
class Step:
    """What was left after one step of the cleaning."""

    step: str
    num_users: int
    num_items: int
    num_interactions: int


@dataclass(frozen=True)
class ReadLog:
    """What reading a log found.

    Attributes:
        num_rows: rows of the log.
        num_missing: rows without a value, by column; they are left out.
        hints: what looks odd but is allowed, in words.
    """

    num_rows: int
    num_missing: dict[str, int]
    hints: tuple[str, ...]


def read_events(connection: Any, log: OpenLog, config: IngestConfig, work: Path) -> ReadLog:
    """Check the view `log` and make the view `read_events`: log_order, user_id, item_id, timestamp and, if any, rating.

    One scan answers every question about the columns. Text is parsed once and kept as Parquet meanwhile.

    Raises:
        DataError: an id or a time is missing (more often than allowed) or is no such thing; it names the file, the row
            and the value.
    """
    if log.is_text:
        connection.sql("SELECT * FROM log").write_parquet(str(work / "raw.parquet"), compression="lz4")
        raw = connection.read_parquet(literal(work / "raw.parquet"), file_row_number=True)
        raw.select("* EXCLUDE (file_row_number), file_row_number AS log_order").create_view("raw")
    else:
        connection.execute("CREATE VIEW raw AS SELECT * FROM log")
    rules = _rules(connection, log, config)
    num_rows, missing, found = _look(connection, rules)
    if num_rows == 0:
        raise DataError(f"{_shown(log.files)}: no interactions, the file is empty")
    _refuse_missing(connection, log, rules, missing, num_rows, config.expectations.max_null_share)
    _refuse(
        connection,
        log,
        [(rule.column, *refusal) for rule in rules for refusal in rule.refusals(found[rule.column])],
    )
    typed = ", ".join(f"{rule.expression(found[rule.column])} AS {rule.column}" for rule in rules)
    absent = " OR ".join(f"({rule.missing})" for rule in rules if rule.missing)
    where = f"WHERE NOT ({absent})" if any(missing.values()) else ""
    connection.execute(f"CREATE VIEW read_events AS SELECT log_order, {typed} FROM raw {where}")
    return ReadLog(num_rows, missing, _hints(found["timestamp"], config))


def _rules(connection: Any, log: OpenLog, config: IngestConfig) -> list[ColumnRule]:
    raw, where = connection.table("raw"), _shown(log.files)
    kinds = dict(zip(raw.columns, map(str, raw.types), strict=True))
    if {"FLOAT", "DOUBLE"} & set(kinds.values()):
        # The statistics of Parquet files leave NaN out, and DuckDB would conclude from them that there is none.
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    rules = [id_rule(name, kinds[name], where, is_text=log.is_text) for name in ("user_id", "item_id")]
    rules.append(timestamp_rule(kinds["timestamp"], where, config.time_unit))
    return [*rules, rating_rule(kinds["rating"])] if log.has_rating else rules


def _look(connection: Any, rules: list[ColumnRule]) -> tuple[int, dict[str, int], dict[str, Answers]]:
    """Count in one scan: rows, missing values, each rule's conditions, and how many rows each refusal could meet."""
    names, conditions = [], []
    for rule in rules:
        if rule.missing:
            names.append((rule.column, ""))
            conditions.append(rule.missing)
        for name, condition in rule.counts.items():
            names.append((rule.column, name))
            conditions.append(condition)
    counted = ", ".join(f"count_if({condition})" for condition in conditions)
    num_rows, *values = one_row(connection, f"SELECT count(*), {counted} FROM raw")
    found: dict[str, Answers] = {rule.column: {} for rule in rules}
    missing = {}
    for (column, name), value in zip(names, values, strict=True):
        if name:
            found[column][name] = int(value or 0)
        else:
            missing[column] = int(value or 0)
    return int(num_rows), missing, found


def _refuse_missing(
    connection: Any, log: OpenLog, rules: list[ColumnRule], missing: dict[str, int], num_rows: int, allowed: float
) -> None:
    for rule in rules:
        if missing.get(rule.column, 0) <= allowed * num_rows:
            continue
        if not allowed:
            _refuse(connection, log, [(rule.column, rule.missing, "it is missing")])
        raise DataError(
            f"{_shown(log.files)}: {rule.column} is missing in {missing[rule.column] / num_rows:.2%} of "
            f"{num_rows:,} rows, expectations.max_null_share allows {allowed:.2%}"
        )


def _refuse(connection: Any, log: OpenLog, refusals: list[tuple[str, str, str]]) -> None:
    """Raise for the first row that meets the first condition that any row meets: (column, condition, allowed)."""
    if not refusals:
        return
    first = ", ".join(f"min(CASE WHEN {condition} THEN log_order END)" for _, condition, _ in refusals)
    for order, (column, _, allowed) in zip(one_row(connection, f"SELECT {first} FROM raw"), refusals, strict=True):
        if order is None:
            continue
        [value] = one_row(connection, f"SELECT {column} FROM raw WHERE log_order = {order}")
        found = "" if value is None or value == "" else f" is {value!r}"
        raise DataError(f"{_place(connection, log, order)}: {column}{found}{',' if found else ':'} {allowed}")


def _place(connection: Any, log: OpenLog, order: int) -> str:
    """Name the file and the row in it (from 1, a header not counted)."""
    if not log.is_text:
        number, row = place_of(order)
        return f"{log.files[number]}: row {row + 1}"
    query = """SELECT file, (SELECT count(*) FROM raw AS earlier WHERE earlier.file = here.file AND log_order <= $order)
               FROM (SELECT file FROM raw WHERE log_order = $order) AS here"""
    file, row = one_row(connection, query, {"order": order})
    return f"{file}: row {row}"


def _hints(times: Answers, config: IngestConfig) -> tuple[str, ...]:
    seen = [name for name in UNIT_NAMES if any(times.get(prefix + name) for prefix in ("", "whole_", "broken_"))]
    if len(seen) == 1 and seen[0] != config.time_unit and seen[0] != "s":
        return (f"timestamps look like {UNIT_NAMES[seen[0]]}: with ingest.time_unit {seen[0]} they become seconds",)
    return ()


class Cleaning:
    """The filters, each a view or a table over the one before, with what it left.

    Attributes:
        relation: name of the events as they are now.
        steps: what each step left but the last, which `finish` adds.
    """

    def __init__(self, connection: Any, relation: str) -> None:
        self._connection = connection
        self.relation, self._name, self._in_order = relation, "read", True
        self.steps: list[Step] = []

    def run(self, config: IngestConfig, min_count: int) -> None:
        """Apply the filters.

        Args:
            config: the filters.
            min_count: users and items below it in the whole log are left out first (0: none).

        Raises:
            DataError: nothing is left after a step; it says what was there before.
        """
        if min_count:
            self._drop_rare(min_count)
        if config.min_rating is not None:
            least = f"{config.min_rating:g}"
            self._keep(f"min_rating {least}", f"NOT isnan(rating) AND rating >= {config.min_rating!r}")
        if config.since is not None:
            self._keep(f"since {config.since}", f"timestamp >= {seconds_of(config.since)!r}")
        if config.until is not None:
            self._keep(f"until {config.until}", f"timestamp < {seconds_of(config.until)!r}")
        if config.duplicates != "keep":
            self._drop_duplicates(config.duplicates)

    def write(self, path: Path, total: int) -> None:
        """Write the events as Parquet, in the log's order."""
        order = "" if self._in_order else "ORDER BY log_order"
        kinds = self._connection.table(self.relation).types[:3]
        # Dictionaries of numbers cost three times the rest of the writing and give no smaller file than deltas.
        numbers = "" if "VARCHAR" in map(str, kinds) else ", DICTIONARY_SIZE_LIMIT 1"
        target = str(path).replace("'", "''")
        with watched(self._connection, "ingest", total):
            self._connection.execute(f"""
                COPY (SELECT * EXCLUDE (log_order) FROM (FROM {self.relation} {order}))
                TO '{target}' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2 {numbers})
            """)

    def finish(self, num_users: int, num_items: int, num_interactions: int) -> list[Step]:
        """Add what the last step left; returns all steps."""
        self._add(Step(self._name, num_users, num_items, num_interactions))
        return self.steps

    def _keep(self, name: str, condition: str) -> None:
        self._next(name, "VIEW", f"SELECT * FROM {self.relation} WHERE {condition}", self._in_order)

    def _drop_rare(self, least: int) -> None:
        """Drop the users and items that have fewer events than `least`, counted once."""
        frequent = [
            f"(SELECT {column} FROM {self.relation} GROUP BY {column} HAVING count(*) >= {least}) USING ({column})"
            for column in ("user_id", "item_id")
        ]
        query = f"SELECT * FROM {self.relation} SEMI JOIN {frequent[0]} SEMI JOIN {frequent[1]}"
        self._next(f"users and items of {least} or more, counted once", "TABLE", query, in_order=False)

    def _drop_duplicates(self, keep: str) -> None:
        """Keep one event of each user and item: the first or the last by time, ties by the log's order."""
        direction = "ASC" if keep == "first" else "DESC"
        query = f"""SELECT * FROM {self.relation} QUALIFY row_number() OVER (
                        PARTITION BY user_id, item_id ORDER BY timestamp {direction}, log_order {direction}) = 1"""
        self._next(f"duplicates {keep}", "TABLE", query, in_order=False)

    def _next(self, name: str, kind: str, query: str, in_order: bool) -> None:
        counted = one_row(
            self._connection, f"SELECT count(DISTINCT user_id), count(DISTINCT item_id), count(*) FROM {self.relation}"
        )
        self._add(Step(self._name, *counted))
        relation = f"events_{len(self.steps)}"
        self._connection.execute(f"CREATE {kind} {relation} AS {query}")
        self.relation, self._name, self._in_order = relation, name, in_order

    def _add(self, left: Step) -> None:
        if left.num_interactions == 0:
            if not self.steps:
                raise DataError("no row of the log has a user_id, an item_id and a timestamp")
            before = self.steps[-1]
            raise DataError(
                f"no user is left after {left.step!r}: before it there were {before.num_users:,} users, "
                f"{before.num_items:,} items and {before.num_interactions:,} interactions"
            )
        self.steps.append(left)


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


def counts_of(step: Step) -> dict[str, int]:
    """Take a step's three counts without its name."""
    return {name: value for name, value in asdict(step).items() if name != "step"}


def _shown(files: tuple[Path, ...]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
