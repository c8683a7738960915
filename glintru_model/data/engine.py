"""DuckDB as this package uses it: out of core, within a memory limit, ordered, offline, with its progress shown."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa

from glintru_model.errors import DataError, StorageError
from glintru_model.progress import Progress

_ENGINE_SHARE = 0.65  # of the memory limit; the rest is for what Arrow and numpy hold of a chunk, and the process
_PROCESS_GIB = 0.2  # what the process holds before it reads anything, with one chunk
_ROWS_PER_BATCH = 1_000_000
_DISK_IS_FULL = ("No space left", "File too large", "Disk quota", "Could not write all bytes")


@contextmanager
def open_engine(spill_directory: Path, what: str, memory_gib: float) -> Iterator[Any]:
    """Open an in-memory DuckDB connection that spills to disk when memory runs short.

    Scans keep the order of the rows whatever the number of threads, so the same input gives the same output.

    Args:
        spill_directory: where intermediate results go that memory does not hold; it may be absent.
        what: the input, as an error is to name it.
        memory_gib: what the whole process may use; the engine takes a share of it.

    Yields:
        The `duckdb.DuckDBPyConnection`.

    Raises:
        DataError: within the block DuckDB could not make sense of the input.
        StorageError: within the block memory or disk ran out.
    """
    import duckdb

    connection = duckdb.connect(
        config={
            "temp_directory": str(spill_directory),
            "memory_limit": f"{int(memory_gib * _ENGINE_SHARE * 1024)}MiB",
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
        }
    )
    # `query_progress` counts only where the bar, which is never drawn, is on.
    for setting in ("TimeZone = 'UTC'", "enable_progress_bar = true", "enable_progress_bar_print = false"):
        connection.execute(f"SET {setting}")
    try:
        yield connection
    except duckdb.OutOfMemoryException as error:
        raise StorageError(
            f"{what}: memory and disk ran out under memory_gib {memory_gib:g}: {_one_line(error)}"
        ) from error
    except (duckdb.Error, pa.ArrowException) as error:  # a stream that breaks off speaks through Arrow
        text = str(error)
        kind = StorageError if any(sign in text for sign in (*_DISK_IS_FULL, "Out of Memory")) else DataError
        raise kind(f"{what}: {_one_line(error)}") from error
    finally:
        connection.close()


def leave_room(connection: Any, memory_gib: float, held_bytes: int) -> None:
    """Lower the engine's share by what is held beside it beyond the rest of the limit; never below a fifth of it.

    Args:
        connection: the engine.
        memory_gib: what the whole process may use.
        held_bytes: ids, counters and the like, in Arrow and numpy.
    """
    spare = memory_gib * (1 - _ENGINE_SHARE) - _PROCESS_GIB
    excess = held_bytes / 2**30 - spare
    if excess > 0:
        share = max(memory_gib * _ENGINE_SHARE - excess, memory_gib / 5)
        connection.execute(f"SET memory_limit = '{int(share * 1024)}MiB'")


def literal(path: Path) -> str:
    """Write a path so that DuckDB takes `*`, `?` and `[` in it as they are, not as a pattern that other files match."""
    return glob.escape(str(path))


def stream(connection: Any, query: str, what: str = "", total: int = 0) -> Iterator[pa.RecordBatch]:
    """Run a query and yield its rows batch by batch, in order.

    Args:
        connection: the engine.
        query: SQL.
        what: shows progress under this name; silent if empty.
        total: rows that the query reads, for the progress.
    """
    with watched(connection, what, total):
        yield from connection.sql(query).to_arrow_reader(_ROWS_PER_BATCH)


@contextmanager
def watched(connection: Any, what: str, total: int) -> Iterator[None]:
    """Show rate and remaining time of the queries that run within the block; silent without a name."""
    if not what:
        yield
        return
    done, progress = Event(), Progress(what, total, "interactions")

    def watch() -> None:
        while not done.wait(1.0):
            percentage = connection.query_progress()
            if 0 < percentage < 100:
                progress.update(total * percentage / 100)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def one_row(connection: Any, query: str, parameters: Any = None) -> tuple[Any, ...]:
    """Run a query and return its only row."""
    [row] = connection.execute(query, parameters).fetchall()
    return tuple(row)


def _one_line(error: Exception) -> str:
    """Keep what went wrong and where; leave out the advice on DuckDB's own options."""
    # DuckDB counts the lines of JSON from 2; a test notices when it no longer does.
    refused = re.search(r'Could not write file \\?"(.+?)\\?": ([^"]+)', str(error))
    if refused:
        return f"cannot write {refused[1]}: {refused[2]}"
    text = re.sub(r"(Malformed JSON .* in line )(\d+)", lambda m: f"{m[1]}{int(m[2]) - 1}", str(error))
    file = re.search(r"^\s*file = (.+?)\s*$", text, re.MULTILINE)
    reason = re.split(r"\n+\s*(?:Possible |file = |LINE )|\s+This limit was set by ", text)[0]
    reason = " ".join(reason.split()).removeprefix("Invalid Input Error: ")
    return f"{file.group(1)}: {reason}" if file and file.group(1) not in reason else reason
