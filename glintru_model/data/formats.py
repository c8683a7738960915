"""The forms a log comes in, each opened as one DuckDB view of the wanted columns.

Text is read as text: what is a number is decided later over the whole column, never from a sample of it.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa

from glintru_model.config import ColumnMapping
from glintru_model.data.engine import literal
from glintru_model.errors import DataError

_FILE_COLUMN = "__source_file"
_ROW_BITS = 40  # of an event's place in the log; the bits above it count the files
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class LogFormat:
    """How a file is written.

    Attributes:
        kind: the reader.
        delimiter, quote, encoding: of text with one event a line; quote "" means that nothing is quoted.
        names: the columns of a file that does not name them itself.
        typed_header: the header says `name:type`, as RecBole's atomic files do.
    """

    kind: Literal["parquet", "csv", "jsonl"]
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    names: tuple[str, ...] = ()
    typed_header: bool = False


PARQUET = LogFormat("parquet")
CSV = LogFormat("csv")
JSONL = LogFormat("jsonl")
FORMATS = {
    "parquet": PARQUET,
    "csv": CSV,
    "tsv": LogFormat("csv", delimiter="\t"),
    "inter": LogFormat("csv", delimiter="\t", quote="", typed_header=True),
    "jsonl": JSONL,
}
_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".inter": "inter",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


@dataclass(frozen=True)
class OpenLog:
    """A log as a DuckDB view `log`: columns user_id, item_id, timestamp and, where there is one, rating.

    Attributes:
        has_rating: whether the log has ratings.
        is_text: whether every column is text so far.
        names: the columns that the first file has.
        files: where it is read from, in the order of reading.
    """

    has_rating: bool
    is_text: bool
    names: tuple[str, ...]
    files: tuple[Path, ...]


def format_of(name: str) -> str | None:
    """Tell the format from a file's name, `.gz` and `.zst` aside; None where the name does not tell."""
    return _SUFFIXES.get(Path(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix)


def known_suffixes() -> str:
    """List the suffixes that tell a format."""
    return ", ".join(_SUFFIXES)


def open_log(connection: Any, files: Sequence[Path], form: LogFormat, columns: ColumnMapping) -> OpenLog:
    """Create the view `log` over the files, read one after another.

    Args:
        connection: a DuckDB connection.
        files: at least one, all of the same format.
        form: the format.
        columns: the log's own names of the columns.

    Raises:
        DataError: a file is empty or cannot be read, a column is missing, or the files differ; it names the file.
    """
    import duckdb

    found = [_columns_of(path, form) for path in files]
    partitions = [_partition_keys(path) for path in files]
    wanted = {"user_id": columns.user_id, "item_id": columns.item_id, "timestamp": columns.timestamp}
    for path, names, keys in zip(files, found, partitions, strict=True):
        for role, name in wanted.items():
            if name not in names and name not in keys:
                raise DataError(f"{path}: no column {name!r} for {role}, found: {', '.join(names)}")
        _refuse_ambiguous(path, names, wanted.values())
    has_rating = all(columns.rating in names for names in found)
    if has_rating:
        wanted["rating"] = columns.rating
    _refuse_mixed(files, found, form, list(wanted.values()))
    relation = _relation(connection, files, found[0], form, wanted)
    chosen = [duckdb.ColumnExpression(name).alias(role) for role, name in wanted.items()]
    if form.kind == "parquet":
        chosen.append(duckdb.SQLExpression(f"(file_index::BIGINT << {_ROW_BITS}) + file_row_number AS log_order"))
    relation.select(*chosen, duckdb.ColumnExpression(_FILE_COLUMN).alias("file")).create_view("log")
    return OpenLog(has_rating, form.kind != "parquet", tuple(found[0]), tuple(files))


def place_of(log_order: int) -> tuple[int, int]:
    """Tell which of a Parquet log's files, and which row in it, has this place in the log; both from 0."""
    return log_order >> _ROW_BITS, log_order & ((1 << _ROW_BITS) - 1)


def open_titles(connection: Any, path: Path, form: LogFormat, item_id: str, title: str) -> None:
    """Create the view `all_titles` (item_id, title), both text.

    Raises:
        DataError: as `open_log`.
    """
    import duckdb

    names = _columns_of(path, form)
    relation = _relation(connection, [path], names, form, {"item_id": item_id, "title": title})
    chosen = [duckdb.ColumnExpression(name).alias(role) for role, name in (("item_id", item_id), ("title", title))]
    relation.select(*chosen).create_view("all_titles")


def _relation(connection: Any, files: Sequence[Path], names: list[str], form: LogFormat, wanted: dict[str, str]) -> Any:
    paths = [literal(path) for path in files]
    partitioned = not set(wanted.values()) <= set(names)  # a column that no file has is a key of the folders
    if form.kind == "parquet":
        return connection.sql(
            """SELECT *, file_index, file_row_number FROM read_parquet($files, filename = $file_column,
               hive_partitioning = $partitioned, hive_types_autocast = false)""",
            params={"files": paths, "file_column": _FILE_COLUMN, "partitioned": partitioned},
        )
    compression = _compression(files[0])
    if form.kind == "jsonl":
        return connection.sql(
            """SELECT * FROM read_json($files, format = 'newline_delimited', columns = $columns,
               filename = $file_column, compression = $compression, hive_partitioning = false)""",
            params={
                "files": paths,
                "columns": dict.fromkeys(wanted.values(), "VARCHAR"),
                "file_column": _FILE_COLUMN,
                "compression": compression,
            },
        )
    return connection.sql(
        """SELECT * FROM read_csv($files, auto_detect = false, header = $header, columns = $columns,
           delim = $delimiter, quote = $quote, escape = $quote, encoding = $encoding, filename = $file_column,
           compression = $compression, hive_partitioning = $partitioned, hive_types_autocast = false)""",
        params={
            "files": paths,
            "partitioned": partitioned,
            "header": not form.names,
            "columns": {_unique(names, position): "VARCHAR" for position in range(len(names))},
            "delimiter": form.delimiter,
            "quote": form.quote,
            "encoding": form.encoding,
            "file_column": _FILE_COLUMN,
            "compression": compression,
        },
    )


def _partition_keys(path: Path) -> set[str]:
    """Return the keys of the `key=value` folders that a file lies in."""
    return {part.partition("=")[0] for part in path.parts[:-1] if "=" in part}


def _unique(names: list[str], position: int) -> str:
    """Name a column so that a second one of the same name does not collide (the first is the one that is read)."""
    name = names[position]
    earlier = [other.lower() for other in names[:position]]
    return f"{name}__{position}" if name.lower() in earlier else name


def _refuse_mixed(files: Sequence[Path], found: list[list[str]], form: LogFormat, wanted: list[str]) -> None:
    if form.kind == "csv":
        for path, names in zip(files, found, strict=True):
            if names != found[0]:
                raise DataError(f"{path}: columns {', '.join(names)}, {files[0]} has {', '.join(found[0])}")
    if form.kind == "parquet":
        first = _parquet_schema(files[0])
        for path in files[1:]:
            schema = _parquet_schema(path)
            for name in set(wanted) & set(first.names):
                if schema.field(name).type != first.field(name).type:
                    raise DataError(
                        f"{path}: column {name!r} is {schema.field(name).type}, "
                        f"in {files[0]} it is {first.field(name).type}"
                    )
    if form.kind != "parquet" and len({_compression(path) for path in files}) > 1:
        raise DataError(f"{files[0].parent}: some files are compressed and some are not, expected all alike")


def _refuse_ambiguous(path: Path, names: Sequence[str], wanted: Iterable[str]) -> None:
    """Refuse a wanted column that stands twice, also in other letters: DuckDB does not tell `User` from `user`."""
    for name in wanted:
        alike = [other for other in names if other.casefold() == name.casefold()]
        if len(alike) > 1:
            raise DataError(f"{path}: column {name!r} is not unique, found: {', '.join(alike)}; rename one")


def _columns_of(path: Path, form: LogFormat) -> list[str]:
    """Read the names of a file's columns from its beginning (or its footer)."""
    if form.kind == "parquet":
        return list(_parquet_schema(path).names)
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        with _open_text(path, form.encoding) as file:
            if form.kind == "jsonl":
                return _json_keys(path, file)
            if form.names:
                return list(form.names)
            names = next(csv.reader(file, **_dialect(form)), [])
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot read: {error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not {form.encoding} text: {error}") from error
    if not any(names):
        raise DataError(f"{path}: the first line is empty, expected the names of the columns")
    return [name.rsplit(":", 1)[0] if form.typed_header else name for name in names]


def _dialect(form: LogFormat) -> dict[str, Any]:
    quoting = {"quotechar": form.quote} if form.quote else {"quoting": csv.QUOTE_NONE}
    return {"delimiter": form.delimiter, **quoting}


def _json_keys(path: Path, file: IO[str]) -> list[str]:
    first = next((line for line in file if line.strip()), "")
    if not first:
        raise DataError(f"{path}: the file is empty")
    try:
        event = json.loads(first)
    except ValueError as error:
        raise DataError(f"{path}: line 1 is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise DataError(f"{path}: line 1 is {type(event).__name__}, expected one JSON object a line")
    return list(event)


def _parquet_schema(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        reason = "the file is empty" if path.is_file() and path.stat().st_size == 0 else f"not a Parquet file: {error}"
        raise DataError(f"{path}: {reason}") from error


def _compression(path: Path) -> str:
    with path.open("rb") as file:
        return _MAGIC.get(file.read(2), "none")


def _open_text(path: Path, encoding: str) -> IO[str]:
    # A byte order mark is no part of the first column's name.
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    compression = _compression(path)
    if compression == "gzip":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    if compression == "zstd":
        return io.TextIOWrapper(pa.CompressedInputStream(str(path), compression), encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")
