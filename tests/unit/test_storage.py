"""S3 against a real server in this process, on loopback."""

import io
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from glintru_model import storage
from glintru_model.config import IngestConfig
from glintru_model.data.ingest import ingest, resolve_source
from glintru_model.errors import ChecksumError, DataError, StorageError

HEADER = "user_id,item_id,timestamp\n"


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://{server.get_host_and_port()[0]}:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def s3(server, monkeypatch, request):
    """A fresh bucket; returns (client, bucket). The product finds server and credentials as AWS's own tools do."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    client = boto3.session.Session().client("s3")
    bucket = f"bucket-{abs(hash(request.node.name))}"
    client.create_bucket(Bucket=bucket)
    return client, bucket


def put(s3, key, content):
    s3[0].put_object(Bucket=s3[1], Key=key, Body=content)


def run(source, tmp_path, **settings):
    ingest(IngestConfig(source=source, **settings), tmp_path / "out", tmp_path / "downloads")
    table = pq.read_table(tmp_path / "out" / "interactions.parquet")
    return [tuple(row.values()) for row in table.to_pylist()]


def fingerprint(source, tmp_path):
    return resolve_source(IngestConfig(source=source), tmp_path).fingerprint


def test_one_object(s3, tmp_path):
    put(s3, "logs/day.csv", HEADER + "u,i,1\n")
    assert run(f"s3://{s3[1]}/logs/day.csv", tmp_path) == [("u", "i", 1)]


@pytest.mark.parametrize("source", ["logs", "logs/", ""])
def test_prefix_in_the_order_of_keys_without_markers(s3, tmp_path, source):
    for number, part in ((2, "b/part-0"), (1, "a/part-1"), (0, "a/part-0")):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": [number]}), buffer)
        put(s3, f"logs/{part}.parquet", buffer.getvalue())
    put(s3, "logs/_SUCCESS", b"")
    put(s3, "logs/folder/", b"")
    put(s3, "logs/_delta_log/0.json", b"{}")
    assert run(f"s3://{s3[1]}/{source}", tmp_path) == [("u", "i", 0), ("u", "i", 1), ("u", "i", 2)]


def test_pattern(s3, tmp_path):
    for day in ("01", "02", "10"):
        put(s3, f"logs/2024-{day}.csv", f"{HEADER}u,i,{int(day)}\n")
    put(s3, "logs/2024-03.txt", "no log")
    assert run(f"s3://{s3[1]}/logs/2024-0*.csv", tmp_path) == [("u", "i", 1), ("u", "i", 2)]
    assert run(f"s3://{s3[1]}/log?/*-1[0-9].csv", tmp_path) == [("u", "i", 10)]


def test_a_neighbour_of_the_prefix_is_not_taken(s3, tmp_path):
    put(s3, "logs/1.csv", HEADER + "u,i,1\n")
    put(s3, "logs-old/1.csv", HEADER + "u,i,9\n")
    assert run(f"s3://{s3[1]}/logs", tmp_path) == [("u", "i", 1)]


@pytest.mark.slow
def test_more_objects_than_one_page_lists(s3, tmp_path):
    for number in range(1001):
        put(s3, f"many/{number:04d}.csv", b"")
    assert len(storage.find_objects(f"s3://{s3[1]}/many/")[1]) == 1001


def test_fingerprint_follows_the_content(s3, tmp_path):
    source = f"s3://{s3[1]}/logs"
    put(s3, "logs/1.csv", HEADER + "u,i,1\n")
    seen = {fingerprint(source, tmp_path)}
    put(s3, "logs/1.csv", HEADER + "u,i,2\n")
    seen.add(fingerprint(source, tmp_path))
    put(s3, "logs/2.csv", HEADER + "u,i,2\n")
    seen.add(fingerprint(source, tmp_path))
    assert len(seen) == 3
    put(s3, "logs/_SUCCESS", b"")
    assert fingerprint(source, tmp_path) in seen
    assert list(tmp_path.iterdir()) == []


def test_a_changed_object_is_downloaded_again_and_an_unchanged_one_is_not(s3, tmp_path, capsys):
    source = f"s3://{s3[1]}/log.csv"
    put(s3, "log.csv", HEADER + "u,i,1\n")
    assert run(source, tmp_path) == [("u", "i", 1)]
    assert "download s3://" in capsys.readouterr().out
    assert run(source, tmp_path) == [("u", "i", 1)]
    assert "use the copy" in capsys.readouterr().out
    put(s3, "log.csv", HEADER + "u,i,2\n")
    assert run(source, tmp_path) == [("u", "i", 2)]


def test_a_large_object_arrives_in_parts(s3, tmp_path):
    content = bytes(range(256)) * (80_000)  # 20 MB: over boto3's threshold for parallel parts
    put(s3, "large.bin", content)
    [item] = storage.find_objects(f"s3://{s3[1]}/large.bin")[1]
    pieces = []
    storage.download({item: tmp_path / "large.bin"}, pieces.append)
    assert (tmp_path / "large.bin").read_bytes() == content
    assert sum(pieces) == item.size == len(content)
    assert len(pieces) > 1


def test_an_object_that_changes_while_it_is_fetched_is_refused(s3, tmp_path):
    put(s3, "log.csv", b"old")
    [item] = storage.find_objects(f"s3://{s3[1]}/log.csv")[1]
    put(s3, "log.csv", b"longer than before")
    with pytest.raises(StorageError, match=r"log\.csv: the object changed while it was fetched"):
        storage.download({item: tmp_path / "log.csv"}, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_gone(s3, tmp_path):
    put(s3, "log.csv", b"x")
    [item] = storage.find_objects(f"s3://{s3[1]}/log.csv")[1]
    s3[0].delete_object(Bucket=s3[1], Key="log.csv")
    with pytest.raises(DataError, match=r"log\.csv: .*\(NoSuchKey\)"):
        storage.download({item: tmp_path / "log.csv"}, lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["none.csv", "none/", "none", "*.csv"])
def test_nothing_there(s3, tmp_path, key):
    put(s3, "other/log.csv", b"x") if key != "*.csv" else put(s3, "log.tsv", b"x")
    with pytest.raises(DataError, match="no object lies there"):
        fingerprint(f"s3://{s3[1]}/{key}", tmp_path)


def test_no_such_bucket(s3, tmp_path):
    with pytest.raises(DataError, match=r"s3://no-such-bucket/logs/: .*\(NoSuchBucket\)"):
        fingerprint("s3://no-such-bucket/logs/", tmp_path)


def test_no_bucket_named(tmp_path):
    with pytest.raises(DataError, match=r"s3:///log\.csv: no bucket, expected s3://bucket/key"):
        fingerprint("s3:///log.csv", tmp_path)


def test_wrong_checksum(s3, tmp_path):
    put(s3, "log.csv", HEADER + "u,i,1\n")
    with pytest.raises(ChecksumError, match="expected 0000"):
        run(f"s3://{s3[1]}/log.csv", tmp_path, checksum="sha256:" + "0" * 64)


def test_no_credentials(s3, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="no credentials, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        fingerprint(f"s3://{s3[1]}/log.csv", tmp_path)


def test_access_refused(s3, monkeypatch):
    from botocore.exceptions import ClientError

    with (
        pytest.raises(StorageError, match=r"the store refuses: no \(AccessDenied\), check AWS_ACCESS_KEY_ID") as caught,
        storage._clear_errors("s3://b/k"),
    ):
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject")
    assert isinstance(caught.value.__cause__, ClientError)


def test_unreachable_endpoint(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match=r"s3://b/log\.csv: Could not connect to the endpoint URL"):
        fingerprint("s3://b/log.csv", tmp_path)


def test_a_folder_that_cannot_be_written_is_a_storage_error(s3):
    put(s3, "log.csv", b"x" * 100)
    [item] = storage.find_objects(f"s3://{s3[1]}/log.csv")[1]
    with pytest.raises(StorageError, match="cannot write"):
        storage.download({item: Path("/proc/nowhere/log.csv")}, lambda _: None)
