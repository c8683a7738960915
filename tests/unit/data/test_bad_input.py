"""What a log of many files can have wrong with it: each a clear error or a stated rule, and nothing half-written."""

import json
import subprocess
import sys
import textwrap
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glintru_model.config import IngestConfig, SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.ingest import ingest
from glintru_model.data.sequences import load_sequences
from glintru_model.errors import DataError

NOON = 1_700_000_000
HEADER = "user_id,item_id,timestamp\n"


@pytest.fixture
def write(tmp_path):
    """Write a file of the folder `log`: text, or Parquet from columns; returns its path."""

    def run(name, text=None, **columns):
        path = tmp_path / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            pq.write_table(pa.table(columns), path)
        else:
            path.write_text(text)
        return path

    return run


def good(count=3, first=0):
    rows = list(range(first, first + count))
    return {"user_id": rows, "item_id": rows, "timestamp": [NOON + row for row in rows]}


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
        second = write("2.csv", HEADER + f"u,i,{NOON}\nu,i,{NOON}000\n")
    else:
        write("1.parquet", **good())
        second = write("2.parquet", **{**good(2), "timestamp": [NOON, NOON * 1000]})
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


def test_a_thousand_files(write, ingested, tmp_path):
    for number in range(1000):
        write(f"{number:04d}.parquet", **good(2, 2 * number))
    rows, _ = ingested(tmp_path / "log")
    assert [row["user_id"] for row in rows] == list(range(2000))


# -- expectations


def test_rows_without_a_value_may_be_left_out(write, ingested, refused, tmp_path):
    write("1.parquet", user_id=["u", None, "v", "w"], item_id=["a", "a", "a", None], timestamp=[1, 2, 3, 4])
    rows, report = ingested(tmp_path / "log", expectations={"max_null_share": 0.25})
    assert [row["user_id"] for row in rows] == ["u", "v"]
    assert (report["num_rows"], report["num_missing"]) == (4, {"user_id": 1, "item_id": 1, "timestamp": 0})
    assert refused(tmp_path / "log", expectations={"max_null_share": 0.2}) == (
        f"{tmp_path}/log/1.parquet: user_id is missing in 25.00% of 4 rows, expectations.max_null_share allows 20.00%"
    )


@pytest.mark.parametrize(
    ("bound", "problem"),
    [
        ({"min_users": 4}, "expectations.min_users 4 does not hold: 3 users are left"),
        ({"min_items": 10}, "expectations.min_items 10 does not hold: 3 items are left"),
        ({"min_interactions": 1000}, "expectations.min_interactions 1,000 does not hold: 3 interactions are left"),
    ],
)
def test_an_expectation_that_does_not_hold(write, refused, ingested, tmp_path, bound, problem):
    write("1.parquet", **good())
    assert refused(tmp_path / "log", expectations=bound) == problem
    [name] = bound
    ingested(tmp_path / "log", expectations={name: 3})


def test_too_many_events_out_of_order(write, refused, ingested, tmp_path):
    write("1.parquet", user_id=[1] * 4, item_id=[1] * 4, timestamp=[5, 3, 4, 6])
    assert refused(tmp_path / "log", expectations={"max_out_of_order_share": 0.4}) == (
        "expectations.max_out_of_order_share 40.00% does not hold: 2 of 4 interactions (50.00%) stand after a later one"
    )
    ingested(tmp_path / "log", expectations={"max_out_of_order_share": 0.5})


def test_a_log_of_nulls_alone(write, refused, tmp_path):
    write("1.parquet", user_id=pa.nulls(3, pa.int64()), item_id=[1, 2, 3], timestamp=[1, 2, 3])
    message = refused(tmp_path / "log", expectations={"max_null_share": 1})
    assert message == "no row of the log has a user_id, an item_id and a timestamp"


# -- size


@pytest.mark.slow
def test_a_user_with_a_million_events(tmp_path):
    times = np.random.default_rng(0).permutation(1_000_000)
    users = np.concatenate([np.full(1_000_000, 5), [4] * 4, [6] * 4])
    table = pa.table(
        {
            "user_id": users,
            "item_id": np.concatenate([times % 1000, [1, 2, 3, 4] * 2]),
            "timestamp": np.concatenate([times, [1, 2, 3, 4] * 2]),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    ingest(IngestConfig(source=str(tmp_path / "log.parquet")), tmp_path / "i", tmp_path / "d")
    build_sequences(tmp_path / "i", tmp_path / "s", SequencesConfig())
    dataset = load_sequences(tmp_path / "s")
    assert np.diff(dataset.offsets).tolist() == [4, 1_000_000, 4]
    ids = np.asarray(dataset.vocabulary.item_ids)[dataset.item_ids[4:1_000_004] - 1]
    assert (ids == np.arange(1_000_000) % 1000).all()


RUN = """
    import json, resource, sys
    from pathlib import Path
    from glintru_model.config import IngestConfig, SequencesConfig
    from glintru_model.data.build import build_sequences
    from glintru_model.data.ingest import ingest
    from glintru_model.errors import GlintruError
    log, work, memory, file_limit = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    try:
        if not (work / "i").exists():
            ingest(IngestConfig(source=log, memory_gib=memory), work / "i", work / "d")
        if file_limit:
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        build_sequences(work / "i", work / "s", SequencesConfig(k_core=2, memory_gib=memory))
    except GlintruError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"peak": peak, "spilled": True}))
"""


def run_apart(log, work, memory, file_limit=0):
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(log), str(work), str(memory), str(file_limit)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def large_log(tmp_path_factory):
    """Thirty million events: over a gigabyte as they are sorted."""
    folder = tmp_path_factory.mktemp("large")
    for part in range(6):
        rng = np.random.default_rng(part)
        size = 5_000_000
        columns = {"user_id": rng.integers(0, 300_000, size), "item_id": rng.integers(0, 50_000, size)}
        pq.write_table(
            pa.table({**columns, "timestamp": rng.integers(NOON, NOON + 10**7, size)}), folder / f"{part}.parquet"
        )
    return folder


@pytest.mark.slow
def test_the_memory_limit_is_obeyed_and_the_disk_that_fills_is_named(large_log, tmp_path):
    found = run_apart(large_log, tmp_path, memory=1)
    assert found.get("peak", 1e12) <= 1.0 * 2**30, found
    before = (tmp_path / "s" / "manifest.json").read_bytes()
    # No file may grow over 32 MB: what would be spilled, and what would be written, meets a disk that is full.
    failed = run_apart(large_log, tmp_path, memory=1, file_limit=32 << 20)
    assert failed["kind"] == "StorageError", failed
    assert "\\n" not in failed["error"]
    assert (tmp_path / "s" / "manifest.json").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_moment_before_1970_or_no_moment_is_refused():
    for bad in ("1969-12-31", "soon", -5):
        with pytest.raises(ValueError, match="since"):
            IngestConfig(since=bad)
    with pytest.raises(ValueError, match="must be before until"):
        IngestConfig(since="2024-01-02", until="2024-01-02")
    for settings in (
        {"validation_start": 1},
        {"split": "temporal", "validation_start": 1},
        {"split": "temporal", "validation_start": 2, "test_start": 1},
    ):
        with pytest.raises(ValueError, match="validation_start"):
            SequencesConfig(**settings)


def test_a_time_window_takes_its_first_moment_and_not_its_last(write, ingested, tmp_path):
    day = 86_400
    begin = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    columns = {
        "user_id": [1, 2, 3, 4],
        "item_id": [1] * 4,
        "timestamp": [begin - 1, begin, begin + day - 1, begin + day],
    }
    write("1.parquet", **columns)
    rows, report = ingested(tmp_path / "log", since="2024-01-01", until="2024-01-02")
    assert [row["user_id"] for row in rows] == [2, 3]
    assert [step["num_users"] for step in report["steps"]] == [4, 3, 2]


def test_sequences_of_a_log_without_a_column_are_refused(tmp_path):
    (tmp_path / "i").mkdir()
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "i" / "interactions.parquet")
    with pytest.raises(DataError, match="no column 'item_id', found: user_id"):
        build_sequences(tmp_path / "i", tmp_path / "s", SequencesConfig())
