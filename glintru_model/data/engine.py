"""DuckDB as this package uses it: out of core, ordered, offline."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glintru_model.errors import DataError, StorageError


@contextmanager
def open_engine(spill_directory: Path, what: str) -> Iterator[Any]:
    """Open an in-memory DuckDB connection that spills to disk when memory runs short.

    Scans keep the order of the rows whatever the number of threads, so the same input gives the same output.

    Args:
        spill_directory: where intermediate results go that memory does not hold; it may be absent.
        what: the input, as an error is to name it.

    Yields:
        The `duckdb.DuckDBPyConnection`.

    Raises:
        DataError: within the block DuckDB could not make sense of the input.
        StorageError: within the block memory and disk ran out.
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
    except duckdb.OutOfMemoryException as error:
        raise StorageError(f"{what}: memory and disk ran out: {_one_line(error)}") from error
    except duckdb.Error as error:
        kind = StorageError if "No space left" in str(error) else DataError
        raise kind(f"{what}: {_one_line(error)}") from error
    finally:
        connection.close()


def _one_line(error: Exception) -> str:
    """Keep what went wrong and where; leave out the advice on DuckDB's own options."""
    # DuckDB counts the lines of JSON from 2; a test notices when it no longer does.
    text = re.sub(r"(Malformed JSON .* in line )(\d+)", lambda m: f"{m[1]}{int(m[2]) - 1}", str(error))
    file = re.search(r"^\s*file = (.+?)\s*$", text, re.MULTILINE)
    reason = re.split(r"\n+\s*(?:Possible |file = |LINE )", text)[0]
    reason = " ".join(reason.split()).removeprefix("Invalid Input Error: ")
    return f"{file.group(1)}: {reason}" if file and file.group(1) not in reason else reason
