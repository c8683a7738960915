"""What a run's `source` means: found and fingerprinted before anything else runs.

A name of the catalog wins over a file of that name; such a file is written `./name`.
"""

import glob
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from glintru_model import storage
from glintru_model.config import ColumnMapping, IngestConfig
from glintru_model.data.catalog import CATALOG, CatalogEntry, find_entry
from glintru_model.data.download import public_url, remote_version
from glintru_model.data.formats import FORMATS, PARQUET, LogFormat, format_of, known_suffixes
from glintru_model.data.hashing import hash_file
from glintru_model.errors import ConfigError, DataError
from glintru_model.fingerprint import combine
from glintru_model.layout import INTERACTIONS_FILE

SYNTHETIC = "synthetic"
_WILDCARDS = "*?["


@dataclass(frozen=True)
class ResolvedSource:
    """An input that exists.

    Attributes:
        kind: where it lies.
        description: what a person would call it; holds no secret.
        fingerprint: changes whenever the content does (sha256 of local files; ETags of remote ones; the catalog's
            entry; the synthetic log's settings).
        root: the local folder or S3 prefix that `files` or `objects` lie below, "" otherwise.
        files: local files.
        objects: S3 objects.
        format, columns: how the log is written.
        entry: the catalog's, where it is one of those.
        checksum: what the file's bytes must hash to, "" where nobody said.
        address: of a web source, in full; it may hold a signature, so it is never shown.
    """

    kind: Literal["synthetic", "catalog", "local", "s3", "web"]
    description: str
    fingerprint: str
    root: str = ""
    files: tuple[Path, ...] = ()
    objects: tuple[storage.S3Object, ...] = ()
    format: LogFormat = PARQUET
    columns: ColumnMapping = field(default_factory=ColumnMapping)
    entry: CatalogEntry | None = None
    checksum: str = ""
    address: str = field(default="", repr=False)


def resolve_source(config: IngestConfig, downloads_dir: Path) -> ResolvedSource:
    """Find the input and fingerprint its content, without reading or downloading a log from elsewhere.

    Args:
        config: names the source.
        downloads_dir: where a copy of a dataset of the catalog may lie; its content counts.

    Raises:
        DataError: no such file, object or dataset (the nearest name is offered), or a scheme that is not supported.
        ConfigError: a setting that this source has no use for.
        StorageError: a store or a server cannot be reached.
    """
    found = _find(config, downloads_dir)
    if not config.append_to:
        return found
    earlier = Path(config.append_to) / INTERACTIONS_FILE
    if not earlier.is_file():
        raise DataError(f"append_to {config.append_to!r}: no {INTERACTIONS_FILE} there, expected the output of ingest")
    return replace(found, fingerprint=combine(found.fingerprint, hash_file(earlier)))


def _find(config: IngestConfig, downloads_dir: Path) -> ResolvedSource:
    source = config.source
    if source == SYNTHETIC:
        return _synthetic(config)
    if source in CATALOG:
        return _catalog(config, downloads_dir)
    if source.startswith(storage.SCHEME):
        return _s3(config)
    if source.startswith(("https://", "http://")):
        return _web(config)
    if "://" in source:
        scheme = source.partition("://")[0]
        raise DataError(
            f"source {public_url(source)!r}: scheme {scheme!r} is not supported, allowed: s3, https, a path"
        )
    return _local(config)


def _synthetic(config: IngestConfig) -> ResolvedSource:
    _refuse_settings(config, "the synthetic log", ("checksum", "format", "columns", "min_rating"))
    settings = config.synthetic
    description = f"synthetic log ({settings.num_users:,} users, seed {settings.seed})"
    return ResolvedSource("synthetic", description, combine(SYNTHETIC, settings.model_dump_json()))


def _catalog(config: IngestConfig, downloads_dir: Path) -> ResolvedSource:
    entry = find_entry(config.source)
    _refuse_settings(config, f"the catalog's {entry.name!r}", ("format", "columns"))
    copy = downloads_dir / entry.file_name
    content = hash_file(copy) if copy.is_file() else "to be downloaded"
    return ResolvedSource(
        kind="catalog",
        description=entry.name,
        fingerprint=combine("catalog", repr(entry), config.checksum, content),
        format=entry.format,
        columns=entry.columns,
        entry=entry,
        checksum=config.checksum,
    )


def _local(config: IngestConfig) -> ResolvedSource:
    path = Path(config.source).expanduser()
    single = path.is_file()
    if single:
        root, names = path.parent, [path.name]
    elif path.is_dir():
        root = path
        names = sorted(found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file())
    elif any(mark in config.source for mark in _WILDCARDS):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
        if not matches:
            raise DataError(f"source {config.source!r}: no file matches")
        root = Path(*path.parts[: next(i for i, part in enumerate(path.parts) if any(m in part for m in _WILDCARDS))])
        names = [match.relative_to(root).as_posix() for match in matches]
    elif "/" in config.source or format_of(config.source):
        raise DataError(f"{config.source}: no such file or folder")
    else:
        find_entry(config.source)  # neither a file nor a dataset: says so, with the nearest name
        raise AssertionError("a catalog name is resolved before")
    form, names = _choose(config, names, single)
    _refuse_checksum_of_many(config, names)
    try:
        content = [part for name in names for part in (Path(name).suffix if single else name, hash_file(root / name))]
    except OSError as error:
        raise DataError(f"{error.filename or config.source}: cannot read: {error.strerror}") from error
    return ResolvedSource(
        kind="local",
        description=config.source,
        fingerprint=combine("local", *content),
        root=str(root),
        files=tuple(root / name for name in names),
        format=form,
        columns=config.columns,
        checksum=config.checksum,
    )


def _s3(config: IngestConfig) -> ResolvedSource:
    prefix, objects = storage.find_objects(config.source)
    by_name = {item.key.removeprefix(prefix): item for item in objects}
    single = len(objects) == 1 and config.source == objects[0].url
    form, names = _choose(config, list(by_name), single)
    _refuse_checksum_of_many(config, names)
    chosen = [by_name[name] for name in names]
    content = [part for item in chosen for part in (item.url, item.etag, str(item.size))]
    return ResolvedSource(
        kind="s3",
        description=config.source,
        fingerprint=combine("s3", *content),
        root=prefix,
        objects=tuple(chosen),
        format=form,
        columns=config.columns,
        checksum=config.checksum,
    )


def _web(config: IngestConfig) -> ResolvedSource:
    url = config.source
    if url.startswith("http://") and not config.checksum:
        raise ConfigError(f"source {public_url(url)!r}: http:// proves nothing, give ingest.checksum or use https://")
    form, _ = _choose(config, [public_url(url)], single=True)
    # A server that names no version may have changed its file: then nothing earlier is reused.
    version = config.checksum or remote_version(url) or uuid.uuid4().hex
    return ResolvedSource(
        kind="web",
        description=public_url(url),
        fingerprint=combine("web", version if config.checksum else f"{url} {version}"),
        format=form,
        columns=config.columns,
        checksum=config.checksum,
        address=url,
    )


def _choose(config: IngestConfig, names: Sequence[str], single: bool) -> tuple[LogFormat, list[str]]:
    """Tell the format and, in a folder, which of its files are the log's."""
    if not single:
        # As Hadoop and Spark have it: `_SUCCESS`, `.crc` and the like are not data.
        names = [name for name in names if not any(part.startswith((".", "_")) for part in name.split("/"))]
    if not names:
        raise DataError(f"{config.source}: the folder holds no file of a log")
    if config.format != "auto":
        return FORMATS[config.format], list(names)
    of_format: dict[str, list[str]] = {}
    for name in names:
        found = format_of(name)
        if found:
            of_format.setdefault(found, []).append(name)
    if not of_format:
        raise DataError(
            f"{public_url(config.source)}: cannot tell the format, set ingest.format or use a suffix of: "
            f"{known_suffixes()}"
        )
    if len(of_format) > 1:
        (one, (first, *_)), (other, (second, *_)) = list(of_format.items())[:2]
        raise DataError(f"{config.source}: {first} is {one} and {second} is {other}, expected one format")
    [(kind, chosen)] = of_format.items()
    return FORMATS[kind], chosen


def _refuse_settings(config: IngestConfig, whose: str, settings: tuple[str, ...]) -> None:
    defaults = IngestConfig()
    for name in settings:
        if getattr(config, name) != getattr(defaults, name):
            raise ConfigError(f"ingest.{name}: {whose} has no use for it, leave it out")


def _refuse_checksum_of_many(config: IngestConfig, names: Sequence[str]) -> None:
    if config.checksum and len(names) > 1:
        raise ConfigError(f"ingest.checksum: it is of one file, {config.source} holds {len(names)}")
