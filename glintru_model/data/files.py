"""Writing so that nothing is ever seen half-written."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glintru_model.errors import DataError, StorageError


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Fill a temporary directory that takes the target's place when the block ends well.

    A target that is there already is replaced as a whole; when the block raises, it stays as it was.

    Args:
        target: the directory to make.

    Yields:
        The temporary directory, beside the target.

    Raises:
        StorageError: the disk refused.
    """
    temporary = temporary_beside(target)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _take_place(temporary, target)
    except OSError as error:
        raise StorageError(f"{target}: cannot write: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_beside(target: Path) -> Path:
    """Name a path in the target's own folder (so that a rename is atomic) that nobody else uses."""
    return target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}"


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step.

    Raises:
        StorageError: the disk refused.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one step, always the same bytes for the same values."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file is missing or holds anything else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: found {type(values).__name__} at the top, expected an object")
    return values


def _take_place(temporary: Path, target: Path) -> None:
    if target.exists():
        old = temporary_beside(target)
        os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, target)
