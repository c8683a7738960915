"""S3, or anything that speaks like it: the only file that talks to boto3.

Credentials, region and endpoint come from where AWS's own tools take them: `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, a profile, or the machine's role.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from glintru_model.errors import DataError, StorageError
from glintru_model.files import atomic_file

SCHEME = "s3://"
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_CHANGED = {"412", "PreconditionFailed"}
_REFUSED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_WILDCARDS = "*?["
_RANGE_BYTES, _READ_BYTES = 16 << 20, 1 << 20
_NUM_RANGES = 8
_MAX_FAILURES = 5  # in a row, of one range, without a byte in between


@dataclass(frozen=True)
class S3Object:
    """An object as a listing shows it; the ETag changes with the content."""

    bucket: str
    key: str
    size: int
    etag: str

    @property
    def url(self) -> str:
        """The object's address."""
        return f"{SCHEME}{self.bucket}/{self.key}"


def find_objects(url: str) -> tuple[str, list[S3Object]]:
    """Find what an address means: one object, the objects that a pattern matches, or all below a prefix.

    Args:
        url: `s3://bucket/key`, `s3://bucket/folder/`, or a pattern with `*`, `?` or `[...]`.

    Returns:
        The prefix that the keys have in common (ends with `/` or is empty), and the objects by key.

    Raises:
        DataError: the address is malformed, or nothing lies there.
        StorageError: the store cannot be reached or refuses.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise DataError(f"{url}: no bucket, expected s3://bucket/key")
    client = _client()
    with _clear_errors(url):
        if any(mark in key for mark in _WILDCARDS):
            literal = key[: min(key.index(mark) for mark in _WILDCARDS if mark in key)]
            prefix = literal[: literal.rfind("/") + 1]
            found = [item for item in _list(client, bucket, literal) if fnmatchcase(item.key, key)]
        else:
            single = _head(client, bucket, key) if key and not key.endswith("/") else None
            if single is not None:
                return key[: key.rfind("/") + 1], [single]
            prefix = key if not key or key.endswith("/") else f"{key}/"
            found = _list(client, bucket, prefix)
    if not found:
        raise DataError(f"{url}: no object lies there")
    return prefix, sorted(found, key=lambda item: item.key)


def download(files: Mapping[S3Object, Path], on_bytes: Callable[[int], None]) -> None:
    """Copy objects to files, each whole or not at all; large ones in parallel ranges.

    A range whose connection is cut goes on at the byte where it was cut. Every range asks for the version that was
    listed, so that an object that changes meanwhile is noticed.

    Args:
        files: where each object goes.
        on_bytes: told the number of bytes of each piece that arrived.

    Raises:
        DataError: an object is gone.
        StorageError: the store cannot be reached or refuses, the disk is full, or an object changed meanwhile.
    """
    client = _client()
    for item, path in files.items():
        with atomic_file(path) as temporary, _clear_errors(item.url):
            with temporary.open("wb") as file:
                file.truncate(item.size)
            with ThreadPoolExecutor(_NUM_RANGES) as pool:
                starts = range(0, item.size, _RANGE_BYTES)
                parts = [pool.submit(_fetch_range, client, item, start, temporary, on_bytes) for start in starts]
                try:
                    for part in parts:
                        part.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise


def _fetch_range(client: Any, item: S3Object, start: int, path: Path, on_bytes: Callable[[int], None]) -> None:
    """Write one range of an object into its place in the file."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    position, end, failures = start, min(start + _RANGE_BYTES, item.size), 0
    with path.open("r+b") as file:
        file.seek(start)
        while position < end:
            wanted = f"bytes={position}-{end - 1}"
            answer = client.get_object(Bucket=item.bucket, Key=item.key, Range=wanted, IfMatch=f'"{item.etag}"')
            body = answer["Body"]  # what fails before it comes is tried again by boto3 itself
            try:
                while block := body.read(_READ_BYTES):
                    file.write(block)
                    position, failures = position + len(block), 0
                    on_bytes(len(block))
                if position < end:
                    raise IncompleteReadError(actual_bytes=position - start, expected_bytes=end - start)
            except (HTTPClientError, IncompleteReadError):
                failures += 1
                if failures == _MAX_FAILURES:
                    raise
                time.sleep(0.1 * 2**failures)


def _client() -> Any:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 4})
    return boto3.session.Session().client("s3", config=config)


def _head(client: Any, bucket: str, key: str) -> S3Object | None:
    from botocore.exceptions import ClientError

    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _MISSING:
            return None
        raise
    return S3Object(bucket, key, int(head["ContentLength"]), str(head["ETag"]).strip('"'))


def _list(client: Any, bucket: str, prefix: str) -> list[S3Object]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [
        S3Object(bucket, item["Key"], int(item["Size"]), str(item["ETag"]).strip('"'))
        for page in pages
        for item in page.get("Contents", [])
        if not item["Key"].endswith("/")
    ]


@contextmanager
def _clear_errors(url: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except ClientError as error:
        problem = error.response.get("Error", {})
        code = str(problem.get("Code", "unknown"))
        if code in _CHANGED:
            raise StorageError(f"{url}: the object changed while it was fetched ({code})") from error
        if code in _MISSING:
            raise DataError(f"{url}: {problem.get('Message') or 'not found'} ({code})") from error
        hint = ", check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy" if code in _REFUSED else ""
        raise StorageError(f"{url}: the store refuses: {problem.get('Message') or code} ({code}){hint}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(f"{url}: no credentials, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except (BotoCoreError, Boto3Error) as error:
        raise StorageError(f"{url}: {' '.join(str(error).split())}") from error
