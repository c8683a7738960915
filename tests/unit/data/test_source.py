"""What a source means, and a fingerprint that follows the content, not the path."""

import pytest

from glintru_model.config import IngestConfig, SyntheticConfig
from glintru_model.data.catalog import CATALOG
from glintru_model.data.ingest import resolve_source
from glintru_model.errors import ConfigError, DataError, StorageError

LOG = b"user_id,item_id,timestamp\nu,i,1\n"


def resolve(source, tmp_path, **settings):
    return resolve_source(IngestConfig(source=str(source), **settings), tmp_path / "downloads")


def test_local_fingerprint_follows_the_content(tmp_path):
    first, copy = tmp_path / "a.csv", tmp_path / "folder" / "b.csv"
    copy.parent.mkdir()
    first.write_bytes(LOG)
    copy.write_bytes(LOG)
    before = resolve(first, tmp_path).fingerprint
    assert resolve(copy, tmp_path).fingerprint == before
    first.write_bytes(LOG.replace(b"1", b"2"))
    assert resolve(first, tmp_path).fingerprint != before
    copy.rename(tmp_path / "b.tsv")  # read in another way
    assert resolve(tmp_path / "b.tsv", tmp_path).fingerprint != before


def test_folder_fingerprint_follows_each_file(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "1.csv").write_bytes(LOG)
    (folder / "2.csv").write_bytes(LOG)
    seen = {resolve(folder, tmp_path).fingerprint}
    (folder / "_SUCCESS").touch()
    assert resolve(folder, tmp_path).fingerprint in seen
    (folder / "2.csv").write_bytes(LOG * 2)
    seen.add(resolve(folder, tmp_path).fingerprint)
    (folder / "2.csv").rename(folder / "0.csv")  # the order of reading changes
    seen.add(resolve(folder, tmp_path).fingerprint)
    assert len(seen) == 3
    assert resolve(folder / "*.csv", tmp_path).fingerprint in seen


def test_nothing_is_written(tmp_path):
    for source in ("synthetic", "ml-1m"):
        resolve(source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_synthetic_and_catalog_fingerprints_follow_the_settings(tmp_path):
    seen = {
        resolve("synthetic", tmp_path).fingerprint,
        resolve("synthetic", tmp_path, synthetic=SyntheticConfig(seed=1)).fingerprint,
        *(resolve(name, tmp_path).fingerprint for name in CATALOG),
    }
    assert len(seen) == 2 + len(CATALOG)
    assert resolve("synthetic", tmp_path).fingerprint in seen


def test_a_catalog_name_wins_over_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "log.csv").write_bytes(LOG)
    assert resolve("ml-1m", tmp_path).kind == "catalog"
    assert resolve("./ml-1m", tmp_path).kind == "local"


@pytest.mark.parametrize(
    ("source", "hint"),
    [("ml1m", "ml-1m"), ("ML-20M", "ml-20m"), ("amazon-beuty", "amazon-beauty"), ("sinthetic", "synthetic")],
)
def test_unknown_dataset(tmp_path, source, hint):
    with pytest.raises(DataError) as caught:
        resolve(source, tmp_path)
    assert str(caught.value) == (
        f"source {source!r}: no such file and no such dataset (did you mean {hint!r}?), known datasets: synthetic, "
        "ml-100k, ml-1m, ml-20m, amazon-beauty, amazon-video-games"
    )


def test_unknown_dataset_unlike_any(tmp_path):
    with pytest.raises(DataError, match="source 'xyz': no such file and no such dataset, known datasets: synthetic, "):
        resolve("xyz", tmp_path)


@pytest.mark.parametrize(
    "source", ["gs://bucket/log.csv", "ftp://host/log.csv", "gs://me:secret@bucket/x?token=secret"]
)
def test_unsupported_scheme(tmp_path, source):
    with pytest.raises(DataError, match="is not supported, allowed: s3, https, a path") as caught:
        resolve(source, tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "settings", "name"),
    [
        ("synthetic", {"format": "csv"}, "format"),
        ("synthetic", {"checksum": "md5:" + "0" * 32}, "checksum"),
        ("synthetic", {"min_rating": 3}, "min_rating"),
        ("ml-1m", {"columns": {"user_id": "x"}}, "columns"),
        ("ml-1m", {"format": "csv"}, "format"),
    ],
)
def test_a_setting_without_use_is_refused(tmp_path, source, settings, name):
    with pytest.raises(ConfigError, match=rf"ingest\.{name}: .* has no use for it"):
        resolve(source, tmp_path, **settings)


def test_a_checksum_of_many_files_is_refused(tmp_path):
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_bytes(LOG)
    with pytest.raises(ConfigError, match=r"ingest\.checksum: it is of one file, .* holds 2"):
        resolve(tmp_path, tmp_path, checksum="md5:" + "0" * 32)


# -- the web


def test_web_fingerprint_follows_the_etag(web, tmp_path):
    source = f"{web.url}/log.csv"
    web.files["/log.csv"] = LOG
    # Plain http is allowed with a checksum only, and then the checksum is the version: nothing is asked.
    one = resolve(source, tmp_path, checksum="md5:" + "1" * 32)
    two = resolve(source, tmp_path, checksum="md5:" + "2" * 32)
    assert one.fingerprint != two.fingerprint
    assert web.requests == []


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_version_of_a_remote_file(web, headers):
    from glintru_model.data.download import remote_version

    web.files["/log.csv"] = LOG
    web.headers["/log.csv"] = headers
    version = remote_version(f"{web.url}/log.csv")
    assert next(iter(headers.values())) in version
    assert remote_version(f"{web.url}/log.csv") == version
    web.headers["/log.csv"] = {name: value.replace("1", "2") for name, value in headers.items()}
    assert remote_version(f"{web.url}/log.csv") != version


def test_plain_http_needs_a_checksum(web, tmp_path):
    with pytest.raises(ConfigError, match=r"http:// proves nothing, give ingest\.checksum or use https://"):
        resolve(f"{web.url}/log.csv?token=secret", tmp_path)


def test_an_unreachable_server(tmp_path):
    with pytest.raises(StorageError, match=r"https://127\.0\.0\.1:9/log\.csv: cannot reach it"):
        resolve("https://127.0.0.1:9/log.csv?token=secret", tmp_path)


def test_an_address_that_does_not_tell_the_format(tmp_path):
    with pytest.raises(DataError, match="https://host/export: cannot tell the format"):
        resolve("https://me:secret@host/export?token=secret", tmp_path)


def test_another_copy_of_a_known_dataset_is_another_source(tmp_path):
    config = IngestConfig(source="ml-100k")
    seen = {resolve_source(config, tmp_path).fingerprint}
    for content in (b"one", b"two"):
        (tmp_path / "ml-100k.zip").write_bytes(content)
        seen.add(resolve_source(config, tmp_path).fingerprint)
    assert len(seen) == 3


def test_an_address_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="not an address"):
        resolve_source(IngestConfig(source="http://[bad/log.csv", checksum="md5:" + 32 * "0"), tmp_path)
