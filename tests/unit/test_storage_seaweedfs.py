"""S3 on a real object store (SeaweedFS, one process on loopback), beside a proxy that cuts connections."""

import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glintru_model import storage
from glintru_model.config import IngestConfig
from glintru_model.data.ingest import ingest, resolve_source
from glintru_model.errors import DataError, StorageError

WEED = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
IDENTITY = {"accessKey": "tester", "secretKey": "right-secret"}

pytestmark = pytest.mark.slow


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not Path(WEED).is_file():
        pytest.skip("SeaweedFS is not installed")
    home = tmp_path_factory.mktemp("weed")
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [{"name": "tester", "credentials": [IDENTITY], "actions": actions}]
    (home / "s3.json").write_text(json.dumps({"identities": identities}))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    grpc = ("master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")
    ports = dict(zip((*names, *grpc), free_ports(8), strict=True))
    command = [
        WEED,
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={home}",
        "-s3",
        f"-s3.config={home}/s3.json",
    ]
    command += ["-master.volumeSizeLimitMB=64", *(f"-{name}={port}" for name, port in ports.items())]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home)
    try:
        yield ports["s3.port"]
    finally:
        process.kill()  # its orderly end takes half a minute
        process.wait()


class CuttingProxy:
    """Passes bytes on to the store, but cuts a connection after `allowance` bytes of answers, `cuts` times."""

    def __init__(self, port):
        self._target, self.allowance, self.cuts, self.done = port, 0, 0, 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source, sink, is_answer):
        passed = 0
        try:
            while block := source.recv(65536):
                passed += len(block)
                if is_answer and passed > self.allowance:
                    with self._lock:
                        if self.done < self.cuts:
                            self.done += 1
                            break
                sink.sendall(block)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stop(self):
        self._listener.close()


@pytest.fixture
def proxy(server):
    proxy = CuttingProxy(server)
    yield proxy
    proxy.stop()


@pytest.fixture
def s3(server, monkeypatch):
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", IDENTITY["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", IDENTITY["secretKey"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    client = boto3.session.Session().client("s3")
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket="logs")
            return client
        except (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            return client
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def events(first, count):
    buffer = io.BytesIO()
    users = list(range(first, first + count))
    pq.write_table(pa.table({"user_id": users, "item_id": users, "timestamp": users}), buffer)
    return buffer.getvalue()


def test_a_prefix_is_ingested(s3, tmp_path):
    for part in range(3):
        s3.put_object(Bucket="logs", Key=f"days/day={part}/part.parquet", Body=events(100 * part, 100))
    report = ingest(IngestConfig(source="s3://logs/days/"), tmp_path / "out", tmp_path / "downloads")
    assert report["counts"]["num_interactions"] == 300
    assert pq.read_table(tmp_path / "out" / "interactions.parquet").column("user_id").to_pylist() == list(range(300))


def test_a_wrong_secret_is_refused(s3, tmp_path, monkeypatch):
    s3.put_object(Bucket="logs", Key="one.parquet", Body=events(0, 10))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(StorageError, match=r"the store refuses: .*check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"):
        resolve_source(IngestConfig(source="s3://logs/days/"), tmp_path)
    with pytest.raises(StorageError, match=r"s3://logs/one\.parquet: the store refuses"):
        ingest(IngestConfig(source="s3://logs/one.parquet"), tmp_path / "out", tmp_path / "downloads")
    assert not (tmp_path / "out").exists()


def test_an_empty_prefix_is_refused(s3, tmp_path):
    with pytest.raises(DataError, match=r"s3://logs/nothing/here/: no object lies there"):
        ingest(IngestConfig(source="s3://logs/nothing/here/"), tmp_path / "out", tmp_path / "downloads")
    assert not (tmp_path / "out").exists()


def test_an_object_of_many_parts_arrives_over_cut_connections(s3, proxy, tmp_path, monkeypatch):
    content = bytes(range(256)) * 180_000  # 46 MB: three ranges
    s3.upload_fileobj(io.BytesIO(content), "logs", "large.bin")  # in parts, as boto3 does from 8 MB on
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    [item] = storage.find_objects("s3://logs/large.bin")[1]
    proxy.allowance, proxy.cuts = 3_000_000, 6
    pieces = []
    storage.download({item: tmp_path / "large.bin"}, pieces.append)
    assert proxy.done == 6
    assert (tmp_path / "large.bin").read_bytes() == content
    assert sum(pieces) == len(content)  # what had arrived before a cut was not fetched again


def test_a_connection_that_is_always_cut_leaves_nothing(s3, proxy, tmp_path, monkeypatch):
    s3.put_object(Bucket="logs", Key="cut.bin", Body=bytes(3_000_000))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    [item] = storage.find_objects("s3://logs/cut.bin")[1]
    proxy.allowance, proxy.cuts = 0, 10**6
    with pytest.raises(StorageError, match=r"s3://logs/cut\.bin: "):
        storage.download({item: tmp_path / "cut.bin"}, lambda _: None)
    assert list(tmp_path.iterdir()) == []
