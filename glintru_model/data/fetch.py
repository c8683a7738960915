"""From a resolved source to local files: downloads, checksums, archives."""

import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from glintru_model import storage
from glintru_model.data.catalog import CatalogEntry
from glintru_model.data.download import (
    byte_progress,
    download,
    fetch_published_md5,
    record_checksum,
    recorded_checksum,
    verify,
)
from glintru_model.data.hashing import hash_file
from glintru_model.data.source import ResolvedSource
from glintru_model.errors import ChecksumError, DataError, StorageError
from glintru_model.progress import say


@dataclass(frozen=True)
class Fetched:
    """Local files of a log.

    Attributes:
        files: the log.
        titles: the archive's file of titles, where it has one.
        checksum: what was checked, in words, for the data report; "" where nothing was.
    """

    files: tuple[Path, ...]
    titles: Path | None = None
    checksum: str = ""


def fetch(source: ResolvedSource, downloads_dir: Path, unpack_dir: Path) -> Fetched:
    """Bring a source's files to this machine, and check them.

    Args:
        source: anything but the synthetic log.
        downloads_dir: where downloads are kept; a copy that lies there already is used.
        unpack_dir: where an archive's members go.

    Raises:
        ChecksumError: a file's bytes are not those that were promised.
        DataError: a file is gone, or an archive is damaged or lacks a member.
        StorageError: a store, a server or the disk fails.
    """
    if source.kind == "catalog" and source.entry is not None:
        return _fetch_entry(source.entry, source.checksum, downloads_dir, unpack_dir)
    if source.kind == "s3":
        files = _fetch_objects(source, downloads_dir)
    elif source.kind == "web":
        files = (_fetch_web(source, downloads_dir),)
    else:
        files = source.files
    if not source.checksum:
        return Fetched(files)
    verify(files[0], source.checksum)
    return Fetched(files, checksum=f"{source.checksum}, as the settings say")


def _fetch_web(source: ResolvedSource, downloads_dir: Path) -> Path:
    path = downloads_dir / "web" / source.fingerprint[:16] / source.description.rstrip("/").rsplit("/", 1)[1]
    if path.is_file():
        say(f"use the copy in {path.parent}")
    else:
        download(source.address, path, source.checksum)
    return path


def _fetch_objects(source: ResolvedSource, downloads_dir: Path) -> tuple[Path, ...]:
    directory = downloads_dir / "s3" / source.fingerprint[:16]
    paths = {item: directory / item.key.removeprefix(source.root) for item in source.objects}
    missing = {item: path for item, path in paths.items() if not path.is_file()}
    if missing:
        arrived = byte_progress(f"download {source.description}", sum(item.size for item in missing))
        storage.download(missing, arrived)
    else:
        say(f"use the copy in {directory}")
    return tuple(paths.values())


def _fetch_entry(entry: CatalogEntry, checksum: str, downloads_dir: Path, unpack_dir: Path) -> Fetched:
    path = downloads_dir / entry.file_name
    checked = _use_copy(entry, path) if path.is_file() else _download_entry(entry, path)
    if checksum:
        verify(path, checksum)
        checked = f"{checksum}, as the settings say"
    if not entry.member:
        return Fetched((path,), checksum=checked)
    log = _unpack(path, entry.member, unpack_dir)
    titles = _unpack(path, entry.titles.member, unpack_dir) if entry.titles else None
    return Fetched((log,), titles, checked)


def _download_entry(entry: CatalogEntry, path: Path) -> str:
    say(f"{entry.name}: {entry.licence}")
    published = f"md5:{fetch_published_md5(entry.checksum_url)}" if entry.checksum_url else ""
    download(entry.url, path, published)
    record_checksum(path, published or f"sha256:{hash_file(path)}")
    return _in_words(recorded_checksum(path))


def _use_copy(entry: CatalogEntry, path: Path) -> str:
    """Check a copy that lies in the downloads folder against the publisher's checksum, or the first download's."""
    say(f"{entry.name}: use the copy {path}")
    expected = recorded_checksum(path)
    if not expected and entry.checksum_url:
        try:
            expected = f"md5:{fetch_published_md5(entry.checksum_url)}"
        except StorageError as error:
            say(f"warning: {path.name} is not checked, the publisher's checksum is out of reach: {error}")
            return "not checked: the publisher's checksum was out of reach"
    if expected:
        try:
            verify(path, expected)
        except ChecksumError as error:
            raise ChecksumError(f"{error} (remove it to download it again)") from error
    record_checksum(path, expected or f"sha256:{hash_file(path)}")
    return _in_words(recorded_checksum(path))


def _in_words(recorded: str) -> str:
    if recorded.startswith("md5:"):  # a checksum of our own is a sha256
        return f"{recorded}, published by the source"
    return f"{recorded}, recorded at the first download (none is published)"


def _unpack(archive: Path, member: str, directory: Path) -> Path:
    path = directory / Path(member).name
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except KeyError as error:
        raise DataError(f"{archive}: no member {member!r} in the archive") from error
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: not a zip archive, or a damaged one: {error}") from error
    return path
