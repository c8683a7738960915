"""A later log added to earlier interactions: only its new events, after the earlier ones."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glintru_model.data.engine import literal, one_row
from glintru_model.data.interactions import INTERACTIONS_FILE
from glintru_model.errors import DataError
from glintru_model.progress import say


@dataclass(frozen=True)
class Appended:
    """What a later log brought.

    Attributes:
        counts: users, items and interactions of the later log after its own filters.
        num_before: earlier interactions.
        num_known: its interactions that the earlier ones have already (same user, item and time).
        num_new: the others, which were added.
        num_new_users, num_new_items: that the earlier interactions do not have.
    """

    counts: tuple[int, int, int]
    num_before: int
    num_known: int
    num_new: int
    num_new_users: int
    num_new_items: int

    def summary(self) -> dict[str, int]:
        """Return the counts for the report."""
        return {name: value for name, value in vars(self).items() if name != "counts"}


def append_events(connection: Any, path: Path, earlier_dir: Path, work: Path) -> Appended:
    """Put the earlier interactions before those in `path`, and take out of `path` what they have already.

    Args:
        connection: the engine.
        path: the later log's clean interactions; replaced.
        earlier_dir: what an earlier `ingest` wrote.
        work: for temporary files.

    Raises:
        DataError: the earlier interactions are missing, or their columns are of other types.
    """
    earlier = earlier_dir / INTERACTIONS_FILE
    if not earlier.is_file():
        raise DataError(f"append_to {str(earlier_dir)!r}: no {INTERACTIONS_FILE} there, expected the output of ingest")
    later = work / "later.parquet"
    os.replace(path, later)
    before = connection.read_parquet(literal(earlier))
    after = connection.read_parquet(literal(later), file_row_number=True)
    kinds = dict(zip(before.columns, map(str, before.types), strict=True))
    for name, kind in zip(after.columns, map(str, after.types), strict=True):
        if name in ("user_id", "item_id") and kinds.get(name) != kind:
            raise DataError(f"append_to {str(earlier_dir)!r}: {name} is {kinds.get(name)} there and {kind} in this log")
    before.create_view("before")
    after.create_view("after")
    connection.execute("""
        CREATE TABLE fresh AS SELECT * FROM after ANTI JOIN before USING (user_id, item_id, timestamp)
    """)
    shared = [name for name in before.columns if name in after.columns]
    rest = [f"NULL AS {name}" for name in before.columns if name not in after.columns]
    columns = ", ".join([*shared, *rest])
    connection.sql(f"""
        SELECT * FROM before UNION ALL BY NAME SELECT {columns} FROM (FROM fresh ORDER BY file_row_number)
    """).write_parquet(str(path), compression="zstd")
    found = _count(connection)
    say(f"{found.num_new:,} of {found.counts[2]:,} interactions are new, {found.num_new_items:,} items are")
    return found


def _count(connection: Any) -> Appended:
    users, items, total, num_before, num_new = one_row(
        connection,
        """SELECT count(DISTINCT user_id), count(DISTINCT item_id), count(*), (SELECT count(*) FROM before),
                  (SELECT count(*) FROM fresh) FROM after""",
    )
    new = [
        one_row(connection, f"SELECT count(*) FROM (SELECT {name} FROM fresh EXCEPT SELECT {name} FROM before)")[0]
        for name in ("user_id", "item_id")
    ]
    return Appended((users, items, total), num_before, total - num_new, num_new, *new)
