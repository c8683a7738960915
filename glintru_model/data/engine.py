"""DuckDB as this package uses it: out of core, ordered, offline."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_engine(spill_directory: Path) -> Iterator[Any]:
    """Open an in-memory DuckDB connection that spills to disk when memory runs short.

    Scans keep the order of the rows whatever the number of threads, so the same input gives the same output.

    Args:
        spill_directory: where intermediate results go that memory does not hold; it may be absent.

    Yields:
        The `duckdb.DuckDBPyConnection`.
    """
    import duckdb

    connection = duckdb.connect(
        config={
            "temp_directory": str(spill_directory),
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
        }
    )
    try:
        yield connection
    finally:
        connection.close()


def quoted(name: str) -> str:
    """Quote a column's name for SQL."""
    return '"' + name.replace('"', '""') + '"'
