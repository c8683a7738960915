"""What a log of many files can have wrong with it: each a clear error or a stated rule, and nothing half-written."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glintru_model.config import IngestConfig, SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.ingest import ingest
from glintru_model.errors import DataError
from tests.unit.data.logs import HEADER, NOON, good


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_truncated_parquet_among_good_files(write, refused, tmp_path, cut):
    write("1.parquet", **good())
    bad = write("2.parquet", **good())
    write("3.parquet", **good())
    bad.write_bytes(bad.read_bytes()[:-cut])
    assert refused(tmp_path / "log").startswith(f"{bad}: not a Parquet file: ")


def test_a_parquet_damaged_in_its_middle_among_good_files(write, refused, tmp_path):
    write("1.parquet", **good(50_000))
    bad = write("2.parquet", **good(50_000))
    content = bytearray(bad.read_bytes())
    content[1000:5000] = b"\xff" * 4000
    bad.write_bytes(content)
    assert str(bad) in refused(tmp_path / "log")


def test_mixed_schemas(write, refused, tmp_path):
    first = write("1.parquet", **good())
    second = write("2.parquet", **{**good(), "timestamp": [float(NOON)] * 3})
    assert refused(tmp_path / "log") == f"{second}: column 'timestamp' is double, in {first} it is int64"


def test_a_file_without_a_column(write, refused, tmp_path):
    write("1.parquet", **good())
    columns = good()
    del columns["item_id"]
    second = write("2.parquet", **columns)
    assert refused(tmp_path / "log").startswith(f"{second}: no column 'item_id' for item_id")


def test_ids_that_are_numbers_in_one_parquet_and_text_in_another(write, refused, tmp_path):
    first = write("1.parquet", **good())
    second = write("2.parquet", **{**good(), "user_id": ["a", "b", "c"]})
    assert refused(tmp_path / "log") == f"{second}: column 'user_id' is string, in {first} it is int64"


def test_ids_that_are_numbers_in_one_csv_and_text_in_another_are_text(write, ingested, tmp_path):
    write("1.csv", HEADER + "7,1,1\n8,2,2\n")
    write("2.csv", HEADER + "x,1,3\n7,2,4\n")
    rows, report = ingested(tmp_path / "log")
    assert [row["user_id"] for row in rows] == ["7", "8", "x", "7"]
    assert [row["item_id"] for row in rows] == [1, 2, 1, 2]
    assert report["columns"]["user_id"] == "string"


# -- units of time


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_seconds_and_milliseconds_in_one_log(write, refused, tmp_path, kind):
    if kind == "csv":
        write("1.csv", HEADER + f"u,i,{NOON}\n")
        second = write("2.csv", HEADER + f"u,i,{NOON}\nu,i,{NOON}000\nu,i,{NOON}\n")
    else:
        write("1.parquet", **good())
        second = write("2.parquet", **{**good(3), "timestamp": [NOON, NOON * 1000, NOON]})
    assert refused(tmp_path / "log") == (
        f"{second}: row 2: timestamp is {NOON * 1000 if kind == 'parquet' else repr(str(NOON * 1000))}, "
        "it looks like milliseconds where others look like seconds"
    )


def test_numbers_and_dates_in_one_log(write, refused, tmp_path):
    write("1.csv", HEADER + f"u,i,{NOON}\n")
    second = write("2.csv", HEADER + "u,i,2024-01-01\n")
    assert refused(tmp_path / "log") == f"{second}: row 1: timestamp is '2024-01-01', expected Unix seconds"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-11-14T22:13:20Z", NOON),
        ("2023-11-14 22:13:20", NOON),
        ("2023-11-14T23:13:20+01:00", NOON),
        ("2023-11-14T22:13:20.5Z", NOON + 0.5),
        ("2023-11-14", NOON - 80_000),
    ],
)
def test_iso_dates_are_utc(write, ingested, tmp_path, text, expected):
    write("1.csv", HEADER + f"u,i,1970-01-02\nu,i,{text}\n")
    assert [row["timestamp"] for row in ingested(tmp_path / "log")[0]] == [86_400, expected]


@pytest.mark.parametrize("bad", ["2023-13-01", "yesterday", "2023-11-14T25:00:00Z", "14.11.2023"])
def test_a_date_that_is_none(write, refused, tmp_path, bad):
    path = write("1.csv", HEADER + f"u,i,2023-11-14\nu,i,{bad}\n")
    message = refused(tmp_path / "log")
    assert message == f"{path}: row 2: timestamp is {bad!r}, expected ISO 8601, as the other times"


@pytest.mark.parametrize(("unit", "factor"), [("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_a_unit_that_is_named_becomes_seconds(write, ingested, tmp_path, unit, factor):
    write("1.csv", HEADER + f"u,i,{NOON * factor}\nv,i,{NOON * factor + factor}\n")
    rows, report = ingested(tmp_path / "log", time_unit=unit)
    assert [row["timestamp"] for row in rows] == [NOON, NOON + 1]
    assert report["columns"]["timestamp"] == "int64"
    write("1.csv", HEADER + f"u,i,{NOON * factor}\nv,i,{NOON * factor + factor // 2}\n")
    assert [row["timestamp"] for row in ingested(tmp_path / "log", time_unit=unit)[0]] == [NOON, NOON + 0.5]


def test_a_unit_that_is_not_named_is_hinted_at(write, ingested, tmp_path):
    write("1.parquet", **{**good(), "timestamp": [NOON * 1000] * 3})
    _, report = ingested(tmp_path / "log")
    assert report["warnings"] == [
        "timestamps look like milliseconds: with ingest.time_unit ms they become seconds",
    ]


# -- text


def test_bom_and_quoted_newlines_in_many_files(write, ingested, tmp_path):
    write("1.csv", "\ufeff" + HEADER + 'u,"two\nlines",1\n')
    write("2.csv", "\ufeff" + HEADER + '"v","a ""b"", c",2\n')
    rows, _ = ingested(tmp_path / "log")
    assert [tuple(row.values()) for row in rows] == [("u", "two\nlines", 1), ("v", 'a "b", c', 2)]


# -- folders


def test_a_key_of_the_folders_may_be_a_column(write, ingested, refused, tmp_path):
    for day in ("2023-11-14", "2023-11-15"):
        columns = good()
        del columns["timestamp"]
        write(f"day={day}/1.parquet", **columns)
    rows, report = ingested(tmp_path / "log", columns={"timestamp": "day"})
    assert [row["timestamp"] for row in rows] == [NOON - 80_000] * 3 + [NOON + 6_400] * 3
    assert report["counts"]["num_interactions"] == 6
    write("1.parquet", **columns)
    assert "no column 'day' for timestamp" in refused(tmp_path / "log", columns={"timestamp": "day"})


def test_a_column_wins_over_a_key_of_the_folders(write, ingested, tmp_path):
    write("user_id=9/1.parquet", **good())
    assert [row["user_id"] for row in ingested(tmp_path / "log")[0]] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_name_that_could_be_a_pattern_is_a_name(tmp_path, kind):
    for folder, user in (("log*", 1), ("log-other", 2)):
        for name in ("day[1]", "day1"):
            path = tmp_path / folder / f"{name}.{kind}"
            path.parent.mkdir(exist_ok=True)
            row = {"user_id": user, "item_id": name, "timestamp": NOON}
            if kind == "parquet":
                pq.write_table(pa.Table.from_pylist([row]), path)
            else:
                path.write_text(HEADER + f"{user},{name},{NOON}\n" if kind == "csv" else json.dumps(row) + "\n")
    output = tmp_path / "out[1]*"
    (tmp_path / "out1").mkdir()
    pq.write_table(pa.table(good()), tmp_path / "out1" / "interactions.parquet")
    report = ingest(IngestConfig(source=f"{tmp_path}/log*/"), output, tmp_path / "downloads")
    rows = pq.read_table(output / "interactions.parquet").to_pylist()
    assert [(row["user_id"], row["item_id"]) for row in rows] == [(1, "day1"), (1, "day[1]")]
    assert report["counts"]["num_interactions"] == 2


def test_a_thousand_files(write, ingested, tmp_path):
    for number in range(1000):
        write(f"{number:04d}.parquet", **good(2, 2 * number))
    rows, _ = ingested(tmp_path / "log")
    assert [row["user_id"] for row in rows] == list(range(2000))


def test_sequences_of_a_log_without_a_column_are_refused(tmp_path):
    (tmp_path / "i").mkdir()
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "i" / "interactions.parquet")
    with pytest.raises(DataError, match="no column 'item_id', found: user_id"):
        build_sequences(tmp_path / "i", tmp_path / "s", SequencesConfig())
