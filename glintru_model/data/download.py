"""Files from the web: to a temporary name first, with progress, and checked."""

import re
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from glintru_model.data.hashing import hash_file
from glintru_model.errors import ChecksumError, DataError, StorageError
from glintru_model.files import atomic_file, write_text
from glintru_model.progress import Progress, say

_BYTES_PER_READ = 1 << 20
_TIMEOUT_SECONDS = 60


def byte_progress(what: str, total: int) -> Callable[[int], None]:
    """Make a callback that is told of each piece's bytes and shows how far a transfer is, in MB."""
    progress, done = Progress(what, total / 1e6, "MB"), 0

    def arrived(count: int) -> None:
        nonlocal done
        done += count
        progress.update(done / 1e6)

    return arrived


def public_url(url: str) -> str:
    """Take out of an address what may be secret: user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DataError(f"not an address: {error}") from error
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def remote_version(url: str) -> str:
    """Ask a web server which version of a file it has now.

    Returns:
        The ETag, else date and size of the last change; "" where the server tells neither.

    Raises:
        DataError: there is no such file.
        StorageError: the server cannot be reached or fails.
    """
    with _open(url) as answer:
        headers = answer.headers
        if headers.get("ETag"):
            return str(headers["ETag"])
        if headers.get("Last-Modified"):
            return f"{headers['Last-Modified']} {headers.get('Content-Length', '')}"
        return ""


def download(url: str, path: Path, checksum: str = "") -> None:
    """Copy a file from the web, whole or not at all.

    Args:
        url: the file.
        path: where it goes.
        checksum: `sha256:<hex>` or `md5:<hex>` that it must have; "" asks for none.

    Raises:
        ChecksumError: it is another file; nothing is left.
        DataError: there is no such file.
        StorageError: the server cannot be reached or fails, the connection breaks, or the disk is full.
    """
    say(f"download {public_url(url)}")
    with _open(url) as answer, atomic_file(path) as temporary:
        total = int(answer.headers.get("Content-Length") or 0)
        with temporary.open("wb") as file:
            done = _copy(url, answer, file, byte_progress(f"download {path.name}", total) if total else None)
        if total and done != total:
            raise StorageError(f"{public_url(url)}: the connection broke after {done:,} of {total:,} bytes")
        if checksum:
            verify(temporary, checksum, public_url(url))


def fetch_published_md5(url: str) -> str:
    """Read the MD5 that a publisher states in a small file of its own.

    Raises:
        DataError: there is no such file, or no MD5 in it.
        StorageError: the server cannot be reached or fails.
    """
    with _open(url) as answer:
        text = answer.read(4096).decode("ascii", errors="replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if not found:
        raise DataError(f"{public_url(url)}: no MD5 in it, found {text[:60]!r}")
    return found.group().lower()


def verify(path: Path, checksum: str, shown: str = "") -> None:
    """Compare a file with a checksum.

    Args:
        path: the file.
        checksum: `sha256:<hex>` or `md5:<hex>`.
        shown: what the user would call the file, where it is not the path.

    Raises:
        ChecksumError: it is another file.
    """
    algorithm, _, expected = checksum.partition(":")
    found = hash_file(path, algorithm)
    if found != expected:
        raise ChecksumError(f"{shown or path}: {algorithm} is {found}, expected {expected}")


def recorded_checksum(path: Path) -> str:
    """Read the checksum that lies beside a downloaded file; "" where there is none yet."""
    for algorithm in ("md5", "sha256"):
        record = _record(path, algorithm)
        length = {"md5": 32, "sha256": 64}[algorithm]
        if record.is_file() and (
            found := re.search(rf"\b[0-9a-fA-F]{{{length}}}\b", record.read_text(encoding="ascii", errors="replace"))
        ):
            return f"{algorithm}:{found.group().lower()}"
    return ""


def record_checksum(path: Path, checksum: str) -> None:
    """Leave a checksum beside a downloaded file, in the form that `md5sum -c` and `sha256sum -c` read."""
    algorithm, _, digest = checksum.partition(":")
    write_text(_record(path, algorithm), f"{digest}  {path.name}\n")


def _record(path: Path, algorithm: str) -> Path:
    return path.with_name(f"{path.name}.{algorithm}")


def _open(url: str) -> Any:
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{public_url(url)}: expected https://")
    try:
        return urlopen(Request(url, headers={"User-Agent": "glintru"}), timeout=_TIMEOUT_SECONDS)  # noqa: S310
    except HTTPError as error:
        kind = DataError if error.code in {404, 410} else StorageError
        raise kind(f"{public_url(url)}: HTTP {error.code} {error.reason}") from error
    except (URLError, HTTPException, OSError) as error:
        raise StorageError(f"{public_url(url)}: cannot reach it: {getattr(error, 'reason', error)}") from error


def _copy(url: str, answer: Any, file: IO[bytes], arrived: Callable[[int], None] | None) -> int:
    done = 0
    while True:
        try:
            block = answer.read(_BYTES_PER_READ)
        except (HTTPException, OSError) as error:
            raise StorageError(f"{public_url(url)}: the connection broke after {done:,} bytes: {error}") from error
        if not block:
            return done
        file.write(block)
        done += len(block)
        if arrived is not None:
            arrived(len(block))
