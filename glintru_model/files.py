"""Files that are there whole or not at all: written under a temporary name, then renamed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glintru_model.errors import DataError, StorageError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, else remove it.

    Raises:
        StorageError: the disk refused (full, read-only, no permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it was renamed, or its folder cannot be
            temporary.unlink()


@contextmanager
def atomic_directory(path: Path, marker: str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes `path`'s place if the block succeeds, else it is removed.

    Args:
        path: the folder to make. One that is there is replaced only if it is empty or an earlier output.
        marker: name of a file that every such output holds.

    Raises:
        DataError: `path` is a file, or a folder of something else.
        StorageError: the disk refused (full, read-only, no permission).
    """
    _refuse_foreign(path, marker)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error.strerror or error}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            earlier = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, earlier)  # an empty folder gives way
            os.replace(temporary, path)
            shutil.rmtree(earlier)
        else:
            os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_foreign(path: Path, marker: str) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise DataError(f"{path}: is a file, expected a folder to write")
    if any(path.iterdir()) and not (path / marker).exists():
        raise DataError(f"{path}: holds other files and no {marker}; give an empty folder or a new one")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file: {error}") from error
