"""Downloads from a real server on loopback: known datasets in their publishers' own forms, checksums, failures."""

import gzip
import hashlib
import io
import json
import zipfile
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from glintru_model.config import IngestConfig
from glintru_model.data import catalog
from glintru_model.data.catalog import CATALOG, Counts
from glintru_model.data.ingest import ingest
from glintru_model.errors import ChecksumError, StorageError

LOG = b"user_id,item_id,timestamp\nu,i,1\n"
RATINGS = [(1, 10, 5, 978300760), (1, 20, 3, 978300761), (2, 10, 4, 978300762)]


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def joined(delimiter):
    return "".join(delimiter.join(map(str, row)) + "\n" for row in RATINGS)


def reviews():
    rows = [
        {"reviewerID": "A1", "asin": "0000000001", "overall": 5.0, "unixReviewTime": 1390000000, "helpful": [0, 0]},
        {
            "reviewerID": "A2",
            "asin": "B000000002",
            "overall": 1.0,
            "unixReviewTime": 1390000001,
            "reviewText": 'a "b"\n',
        },
    ]
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


def video_games():
    """A user and items that a count in one pass keeps, though after it they have fewer than 5."""
    rows = [(f"U{user}", f"G{item}", 4.0, 100 + item) for user in range(5) for item in range(4)]
    rows += [
        ("U0", "RARE", 2.0, 300),
        *((f"U{user}", "G4", 3.0, 400) for user in range(1, 5)),
        ("ONCE", "G4", 1.0, 500),
    ]
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


PUBLISHED = {
    "ml-100k": archive(
        **{
            "ml-100k/u.data": joined("\t"),
            "ml-100k/u.item": "".join(
                f"{item}|{title}|01-Jan-1995||http://x|{'|'.join('0' * 19)}\n"
                for item, title in ((10, "Misérables, Les (1995)"), (20, 'Say "Hi" (1996)'), (30, "Unseen (1997)"))
            ).encode("latin-1"),
        }
    ),
    "ml-1m": archive(
        **{
            "ml-1m/ratings.dat": joined("::"),
            "ml-1m/movies.dat": '10::Misérables, Les (1995)::Drama\n20::Say "Hi" (1996)::Comedy|Drama\n'.encode(
                "latin-1"
            ),
        }
    ),
    "ml-20m": archive(
        **{
            "ml-20m/ratings.csv": "userId,movieId,rating,timestamp\n" + joined(","),
            "ml-20m/movies.csv": 'movieId,title,genres\n10,"Misérables, Les (1995)",Drama\n20,"Say ""Hi"" (1996)",X\n',
        }
    ),
    "amazon-beauty": reviews(),
    "amazon-video-games": video_games(),
}


@pytest.fixture
def publisher(web, monkeypatch):
    """Serve every known dataset, small, in its publisher's form, as the catalog's own addresses say."""
    for name, entry in CATALOG.items():
        path = "/" + entry.file_name
        web.files[path] = PUBLISHED[name]
        changes = {"url": web.url + path}
        if entry.checksum_url:
            changes["checksum_url"] = f"{web.url}{path}.md5"
            digest = hashlib.md5(PUBLISHED[name]).hexdigest()
            web.files[f"{path}.md5"] = f"MD5 ({entry.file_name}) = {digest}\n".encode()
        monkeypatch.setitem(catalog.CATALOG, name, replace(entry, **changes))
    return web


def expect(monkeypatch, name, **expected):
    counts = {int(key.removeprefix("core_")): value for key, value in expected.items()}
    monkeypatch.setitem(catalog.CATALOG, name, replace(CATALOG[name], expected=counts))


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-20m"])
def test_movielens_in_the_publishers_form(publisher, ingested, tmp_path, name):
    rows, report = ingested(name)
    assert [(r["user_id"], r["item_id"], r["rating"], r["timestamp"]) for r in rows] == RATINGS
    titles = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert titles == [{"item_id": 10, "title": "Misérables, Les (1995)"}, {"item_id": 20, "title": 'Say "Hi" (1996)'}]
    digest = hashlib.md5(PUBLISHED[name]).hexdigest()
    assert report["source"]["checksum"] == f"md5:{digest}, published by the source"
    assert sorted(path.name for path in (tmp_path / "downloads").iterdir()) == [f"{name}.zip", f"{name}.zip.md5"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "data_report.json",
        "interactions.parquet",
        "items.parquet",
    ]


def test_amazon_reviews_in_the_publishers_form(publisher, ingested, tmp_path):
    rows, report = ingested("amazon-beauty")
    assert [tuple(row.values()) for row in rows] == [
        ("A1", "0000000001", 1390000000, 5.0),
        ("A2", "B000000002", 1390000001, 1.0),
    ]
    digest = hashlib.sha256(PUBLISHED["amazon-beauty"]).hexdigest()
    assert report["source"]["checksum"].startswith(f"sha256:{digest}, recorded at the first download")
    record = tmp_path / "downloads" / "reviews_Beauty_5.json.gz.sha256"
    assert record.read_text() == f"{digest}  reviews_Beauty_5.json.gz\n"


def test_video_games_are_counted_once_as_in_the_published_preprocessing(publisher, ingested):
    rows, report = ingested("amazon-video-games")
    # U0 has 5 with RARE, which has one: RARE goes, U0 stays with 4. ONCE goes, G4 stays with 4.
    assert {row["item_id"] for row in rows} == {"G0", "G1", "G2", "G3", "G4"}
    assert sum(row["user_id"] == "U0" for row in rows) == 4
    assert sum(row["item_id"] == "G4" for row in rows) == 4
    assert [step["step"] for step in report["steps"]] == ["read", "users and items of 5 or more, counted once"]


def test_a_second_run_uses_the_copy(publisher, ingested, capsys):
    ingested("ml-1m")
    asked = list(publisher.requests)
    ingested("ml-1m")
    assert publisher.requests == asked == ["/ml-1m.zip.md5", "/ml-1m.zip"]
    assert "ml-1m: use the copy" in capsys.readouterr().out


def test_a_download_shows_its_progress(publisher, ingested, capsys):
    ingested("amazon-beauty")
    shown = capsys.readouterr().out
    assert f"» download {publisher.url}/reviews_Beauty_5.json.gz" in shown
    assert "» download reviews_Beauty_5.json.gz: 0/0 MB" in shown
    assert "left" in shown


def test_a_copy_put_there_by_hand_is_checked(publisher, ingested, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "ml-1m.zip").write_bytes(PUBLISHED["ml-1m"])
    ingested("ml-1m")
    assert publisher.requests == ["/ml-1m.zip.md5"]
    assert (downloads / "ml-1m.zip.md5").is_file()


def test_a_copy_is_used_where_the_publisher_is_out_of_reach(publisher, ingested, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(catalog.CATALOG, "ml-1m", replace(CATALOG["ml-1m"], checksum_url="http://127.0.0.1:9/md5"))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "ml-1m.zip").write_bytes(PUBLISHED["ml-1m"])
    _, report = ingested("ml-1m")
    assert report["source"]["checksum"] == "not checked: the publisher's checksum was out of reach"
    assert "warning: ml-1m.zip is not checked" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ml-1m", "amazon-beauty"])
def test_a_copy_that_changed_is_refused(publisher, ingested, refused, tmp_path, name):
    ingested(name)
    path = tmp_path / "downloads" / CATALOG[name].file_name
    path.write_bytes(path.read_bytes() + b"x")
    message = refused(name)
    assert message.startswith(f"{path}: ")
    assert message.endswith("(remove it to download it again)")


def test_a_download_with_the_wrong_checksum_is_not_kept(publisher, tmp_path):
    publisher.files["/ml-1m.zip"] += b"x"
    with pytest.raises(ChecksumError, match=r"/ml-1m\.zip: md5 is [0-9a-f]{32}, expected [0-9a-f]{32}$"):
        ingest(IngestConfig(source="ml-1m"), tmp_path / "out", tmp_path / "downloads")
    assert list((tmp_path / "downloads").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_the_settings_may_pin_a_checksum(publisher, ingested, refused):
    digest = hashlib.sha256(PUBLISHED["amazon-beauty"]).hexdigest()
    _, report = ingested("amazon-beauty", checksum=f"sha256:{digest}")
    assert report["source"]["checksum"] == f"sha256:{digest}, as the settings say"
    assert "expected " + "0" * 64 in refused("amazon-beauty", checksum="sha256:" + "0" * 64)


def test_expected_counts_met(publisher, ingested, monkeypatch, capsys):
    expect(monkeypatch, "ml-1m", core_0=Counts(2, 2, 3))
    _, report = ingested("ml-1m")
    assert report["expected"]["met"]
    assert report["warnings"] == []
    assert "warning" not in capsys.readouterr().out


def test_expected_counts_missed_are_said(publisher, ingested, capsys):
    _, report = ingested("ml-1m")
    verdict = (
        "ml-1m yields 2 users, 2 items, 3 interactions, expected were 6,040 users, 3,706 items, 1,000,209 interactions "
        "(the publisher's README; with k_core 5 as in SASRec's repository)"
    )
    assert report["warnings"] == [verdict]
    assert not report["expected"]["met"]
    assert f"» warning: {verdict}" in capsys.readouterr().out


@pytest.mark.parametrize("settings", [{"min_rating": 1}, {"duplicates": "last"}])
def test_no_counts_are_expected_of_other_settings(publisher, ingested, settings):
    _, report = ingested("ml-1m", **settings)
    assert report["expected"] is None
    assert report["warnings"] == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"no archive", "not a zip archive, or a damaged one"),
        (archive(other="x"), "no member 'ml-1m/ratings.dat' in the archive"),
        (archive(**{"ml-1m/ratings.dat": joined("::") * 100})[:-200], "not a zip archive, or a damaged one"),
    ],
)
def test_a_damaged_archive_is_named(publisher, refused, tmp_path, content, problem):
    publisher.files["/ml-1m.zip"] = content
    publisher.files["/ml-1m.zip.md5"] = hashlib.md5(content).hexdigest().encode()
    assert problem in refused("ml-1m")


# -- other addresses


def test_http_with_a_checksum(web, ingested, refused, tmp_path):
    web.files["/log.csv"] = LOG
    digest = hashlib.sha256(LOG).hexdigest()
    rows, report = ingested(f"{web.url}/log.csv?token=secret", checksum=f"sha256:{digest}")
    assert [tuple(row.values()) for row in rows] == [("u", "i", 1)]
    assert report["source"]["description"] == f"{web.url}/log.csv"
    assert "secret" not in json.dumps(report)
    assert web.requests == ["/log.csv?token=secret"]
    ingested(f"{web.url}/log.csv", checksum=f"sha256:{digest}")
    assert len(web.requests) == 1  # the copy
    assert "md5 is" in refused(f"{web.url}/log.csv", checksum="md5:" + "0" * 32)


def test_no_such_page(web, refused):
    assert refused(f"{web.url}/none.csv", checksum="md5:" + "0" * 32) == f"{web.url}/none.csv: HTTP 404 Not Found"


def test_a_connection_that_breaks_leaves_nothing(web, tmp_path):
    web.files["/log.csv"] = LOG
    web.headers["/log.csv"] = {"Content-Length": "1000"}
    config = IngestConfig(source=f"{web.url}/log.csv", checksum="md5:" + "0" * 32)
    with pytest.raises(StorageError, match=r"/log\.csv: the connection broke after"):
        ingest(config, tmp_path / "out", tmp_path / "downloads")
    assert [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()] == []


def test_a_local_file_may_have_a_checksum(ingested, refused, tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(LOG)
    digest = hashlib.md5(LOG).hexdigest()
    assert ingested(path, checksum=f"md5:{digest}")[1]["source"]["checksum"] == f"md5:{digest}, as the settings say"
    assert refused(path, checksum="md5:" + "0" * 32) == f"{path}: md5 is {digest}, expected {'0' * 32}"
