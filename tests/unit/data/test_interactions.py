"""Types, refusals and filters of a log, against tables worked by hand and a plain reference."""

import gzip
import itertools
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glintru_model.config import IngestConfig
from glintru_model.data.ingest import ingest

NOON = 1_700_000_000


@pytest.fixture
def csv(tmp_path):
    """Write a CSV of user_id, item_id, timestamp (and rating) rows; returns its path."""

    def write(*rows, header="user_id,item_id,timestamp", name="log.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
        return path

    return write


@pytest.fixture
def table(tmp_path):
    """Write a Parquet log from arrays, the wanted columns that are not given filled in; returns its path."""

    def write(name="log.parquet", **columns):
        length = len(next(iter(columns.values())))
        rest = {name: list(range(length)) for name in ("user_id", "item_id", "timestamp") if name not in columns}
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({**columns, **rest}), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def ingest_table(tmp_path):
    """Run ingest on a source with settings; returns the interactions as a data frame."""

    def run(source, **filters):
        ingest(IngestConfig(source=str(source), **filters), tmp_path / "out", tmp_path / "downloads")
        return pd.read_parquet(tmp_path / "out" / "interactions.parquet")

    return run


def column(rows, name):
    return [row[name] for row in rows]


# -- ids


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", "20", "-3"], [1, 20, -3]),
        (["1", "02", "3"], ["1", "02", "3"]),  # a leading zero is part of an id
        (["1", "x", "3"], ["1", "x", "3"]),
        (["1", "2.0", "3"], ["1", "2.0", "3"]),
        (["9223372036854775808", "1", "2"], ["9223372036854775808", "1", "2"]),  # over 64 bits
        ([" 1", "1", "2"], [" 1", "1", "2"]),
        (["NULL", "nan", "None"], ["NULL", "nan", "None"]),  # words, not missing values
    ],
)
def test_ids_of_text_logs(csv, ingested, ids, expected):
    rows, _ = ingested(csv(*((user, "i", 1) for user in ids)))
    assert column(rows, "user_id") == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([3, 4], pa.int16()), [3, 4]),
        (pa.array([3, 2**63 - 1], pa.uint64()), [3, 2**63 - 1]),
        (pa.array([3.0, -4.0]), [3, -4]),
        (pa.array(["3", "4"]), ["3", "4"]),  # a typed file means its types
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (pa.array(["b", "a"], pa.large_string()), ["b", "a"]),
    ],
)
def test_ids_of_parquet(table, ingested, ids, expected):
    assert column(ingested(table(item_id=ids))[0], "item_id") == expected


@pytest.mark.parametrize("bad", ["", '""'])
@pytest.mark.parametrize("name", ["user_id", "item_id"])
def test_missing_id_in_text(csv, refused, name, bad):
    good, other = ("u", "i", 1), (bad, "i", 1) if name == "user_id" else ("u", bad, 1)
    path = csv(good, good, other, good)
    assert refused(path) == f"{path}: row 3: {name}: it is missing"


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ([1, None], "row 2: user_id: it is missing"),
        (["a", None], "row 2: user_id: it is missing"),
        (["a", ""], "row 2: user_id: it is missing"),
        ([1.0, 1.5], "row 2: user_id is 1.5, expected whole numbers or text"),
        ([1.0, float("nan")], "row 2: user_id is nan, expected whole numbers or text"),
        (pa.array([1, 2**63], pa.uint64()), "row 2: user_id is 9223372036854775808, expected at most 64 bits"),
        ([True, False], "user_id is of type BOOLEAN, expected whole numbers or text"),
        ([[1], [2]], "user_id is of type BIGINT[], expected whole numbers or text"),
    ],
)
def test_unusable_ids_of_parquet(table, refused, ids, problem):
    path = table(user_id=ids)
    assert refused(path) == f"{path}: {problem}"


def test_the_row_is_counted_within_its_file(csv, refused, tmp_path):
    csv(("u", "i", 1), ("u", "i", 2), name="log/1.csv")
    second = csv(("u", "i", 1), ("u", "", 2), name="log/2.csv")
    csv(("u", "i", 1), name="log/3.csv")
    assert refused(tmp_path / "log") == f"{second}: row 2: item_id: it is missing"


# -- timestamps


@pytest.mark.parametrize(
    ("times", "expected", "kind"),
    [
        (["881250949", "0"], [881250949, 0], "int64"),
        (["881250949.0", "1e9"], [881250949, 1_000_000_000], "int64"),
        (["1400000000.25", "1"], [1400000000.25, 1.0], "float64"),
        (["1400000000.123456", "1"], [1400000000.123456, 1.0], "float64"),
        ([str(2**60 + 1), "5"], [2**60 + 1, 5], "int64"),  # beyond what a float64 holds
    ],
)
def test_times_of_text_logs(csv, ingested, times, expected, kind):
    rows, report = ingested(csv(*(("u", "i", time) for time in times)))
    assert column(rows, "timestamp") == expected
    assert report["columns"]["timestamp"] == kind


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([1, 2], pa.int32()), [1, 2]),
        (pa.array([881250949.0, 1.0]), [881250949, 1]),
        (pa.array([881250949.5, 1.0]), [881250949.5, 1.0]),
        (pa.array([7.0, 16_777_215.0], pa.float32()), [7, 16_777_215]),
        (pa.array([datetime.fromtimestamp(NOON, UTC)] * 2, pa.timestamp("ms", "UTC")), [NOON] * 2),
        (pa.array([datetime(2023, 11, 14, 22, 13, 20)] * 2, pa.timestamp("ns")), [NOON] * 2),
        (pa.array([datetime(2023, 11, 14, 22, 13, 20, 500_000)] * 2, pa.timestamp("us")), [NOON + 0.5] * 2),
        (pa.array([date(1970, 1, 2)] * 2), [86_400] * 2),
        (pa.array(["12", "13"]), [12, 13]),
    ],
)
def test_times_of_parquet(table, ingested, times, expected):
    assert column(ingested(table(timestamp=times))[0], "timestamp") == expected


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("yesterday", "timestamp is 'yesterday', expected Unix seconds"),
        ("2024-01-01", "timestamp is '2024-01-01', expected Unix seconds"),
        ("nan", "timestamp is 'nan', expected Unix seconds"),
        ("inf", "timestamp is 'inf', expected Unix seconds"),
        ("1_000", "timestamp is '1_000', expected Unix seconds"),
        ("-5", "timestamp is '-5', expected no negative time"),
        ("-0.5", "timestamp is '-0.5', expected no negative time"),
        ("9223372036854775808", "timestamp is '9223372036854775808', expected at most 64 bits"),
        ("", "timestamp: it is missing"),
    ],
)
def test_unusable_times_of_text_logs(csv, refused, bad, problem):
    path = csv(("u", "i", 1), ("u", "i", bad), ("u", "i", bad))
    assert refused(path) == f"{path}: row 2: {problem}"


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ([1, None], "row 2: timestamp: it is missing"),
        ([1, -1], "row 2: timestamp is -1, expected no negative time"),
        ([1.0, float("nan")], "row 2: timestamp is nan, expected Unix seconds"),
        ([1.0, float("inf")], "row 2: timestamp is inf, expected Unix seconds"),
        (["1", "later"], "row 2: timestamp is 'later', expected Unix seconds"),
        (
            pa.array([1.0, 881250949.0], pa.float32()),
            "row 2: timestamp is 881250944.0, 32-bit floats round times of this size, expected int64 or float64",
        ),
        ([True, False], "timestamp is of type BOOLEAN, expected Unix seconds"),
    ],
)
def test_unusable_times_of_parquet(table, refused, times, problem):
    path = table(timestamp=times)
    assert refused(path) == f"{path}: {problem}"


def test_a_time_before_1970_is_refused(table, refused):
    path = table(timestamp=pa.array([datetime(1970, 1, 1), datetime(1969, 12, 31)], pa.timestamp("s")))
    assert "row 2: timestamp is" in refused(path)


# -- ratings


def test_min_rating_drops_low_and_missing_ratings(csv, ingested):
    header = "user_id,item_id,timestamp,rating"
    path = csv(("u", "a", 1, 4), ("u", "b", 2, 3.5), ("u", "c", 3, ""), ("u", "d", 4, 5), header=header)
    rows, report = ingested(path, min_rating=4)
    assert column(rows, "item_id") == ["a", "d"]
    assert [step["step"] for step in report["steps"]] == ["read", "min_rating 4"]
    assert column(ingested(path)[0], "rating") == [4, 3.5, None, 5]


def test_min_rating_drops_nan(table, ingested):
    assert column(ingested(table(rating=[float("nan"), 5.0]), min_rating=1)[0], "rating") == [5]


def test_min_rating_without_ratings(csv, refused):
    path = csv(("u", "i", 1))
    assert refused(path, min_rating=3) == (
        f"{path}: min_rating 3 needs a column 'rating', found: user_id, item_id, timestamp"
    )


def test_unusable_rating(csv, refused):
    path = csv(("u", "i", 1, 5), ("u", "i", 1, "good"), header="user_id,item_id,timestamp,rating")
    assert refused(path) == f"{path}: row 2: rating is 'good', expected a number"


def test_a_log_without_ratings_stays_without(csv, ingested):
    assert list(ingested(csv(("u", "i", 1)))[0][0]) == ["user_id", "item_id", "timestamp"]


# -- duplicates


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("keep", [("u", "a", 5), ("u", "a", 3), ("u", "b", 4), ("u", "a", 5), ("v", "a", 9), ("u", "a", 3)]),
        ("first", [("u", "a", 3), ("u", "b", 4), ("v", "a", 9)]),
        ("last", [("u", "b", 4), ("u", "a", 5), ("v", "a", 9)]),
    ],
)
def test_duplicates(csv, ingested, policy, expected):
    log = [("u", "a", 5), ("u", "a", 3), ("u", "b", 4), ("u", "a", 5), ("v", "a", 9), ("u", "a", 3)]
    rows, report = ingested(csv(*log), duplicates=policy)
    assert [tuple(row.values()) for row in rows] == expected
    assert report["steps"][-1]["num_interactions"] == len(expected)


@pytest.mark.parametrize(("policy", "kept"), [("first", 1.0), ("last", 3.0)])
def test_duplicates_at_one_time_go_by_the_logs_order(table, ingested, policy, kept):
    path = table(user_id=[7] * 3, item_id=[8] * 3, timestamp=[5] * 3, rating=[1.0, 2.0, 3.0])
    assert column(ingested(path, duplicates=policy)[0], "rating") == [kept]


def test_no_user_left_after_min_rating(csv, refused):
    path = csv(("u", "a", 1, 3), header="user_id,item_id,timestamp,rating")
    assert "no user is left after 'min_rating 4': before it there were 1 users" in refused(path, min_rating=4)


def reference(rows, min_rating, duplicates, since):
    """The same filters in plain Python; rows are (user, item, time, rating)."""
    kept = [(number, *row) for number, row in enumerate(rows) if min_rating is None or row[3] >= min_rating]
    kept = [row for row in kept if since is None or since <= row[3] < since + 5]
    if duplicates != "keep":
        best = {}
        for row in sorted(kept, key=lambda row: (row[3], row[0]), reverse=duplicates == "first"):
            best[row[1:3]] = row
        kept = sorted(best.values())
    return [row[1:] for row in kept]


logs = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("abcdef"), st.integers(0, 9), st.sampled_from([1.0, 2.0, 3.0])),
    min_size=1,
    max_size=60,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=logs,
    min_rating=st.sampled_from([None, 2.0]),
    duplicates=st.sampled_from(["keep", "first", "last"]),
    since=st.sampled_from([None, 2]),
)
def test_random_logs(table, ingested, refused_quietly, rows, min_rating, duplicates, since):
    users, items, times, ratings = map(list, zip(*rows, strict=True))
    path = table(user_id=users, item_id=items, timestamp=times, rating=ratings)
    expected = reference(rows, min_rating, duplicates, since)
    filters = {"min_rating": min_rating, "duplicates": duplicates}
    if since is not None:
        filters |= {"since": since, "until": since + 5}
    if not expected:
        assert "no user is left after" in refused_quietly(path, **filters)
        return
    found, report = ingested(path, **filters)
    assert [tuple(row.values()) for row in found] == expected  # the log's order too
    assert report["counts"] == {
        "num_users": len({row[0] for row in expected}),
        "num_items": len({row[1] for row in expected}),
        "num_interactions": len(expected),
    }


LOGS = ["ml-100k", "ml-1m", "amazon-beauty", "amazon-video-games"]


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("filters", [{}, {"min_rating": 4, "since": "1998-01-01", "duplicates": "last"}])
def test_real_log_equals_the_pandas_reference(real_log, ingest_table, name, filters):
    log = pd.read_parquet(real_log(name))
    if filters:
        if "rating" not in log:
            pytest.skip(f"{name} has no ratings")
        log = log[(log.rating >= 4) & (log.timestamp >= pd.Timestamp("1998-01-01").timestamp())]
        ordered = log.sort_values("timestamp", kind="stable")
        log = ordered.drop_duplicates(["user_id", "item_id"], keep="last").sort_index()
    found = ingest_table(real_log(name), **filters)[list(log.columns)]
    pd.testing.assert_frame_equal(found, log.reset_index(drop=True).astype(found.dtypes.to_dict()))


# -- the report


def test_report_by_hand(csv, ingested):
    log = [("u", "a", 10), ("u", "b", 20), ("u", "a", 30), ("v", "a", 5), ("w", "c", 7)]
    _, report = ingested(csv(*log))
    assert report["counts"] == {"num_users": 3, "num_items": 3, "num_interactions": 5}
    assert report["steps"] == [{"step": "read", **report["counts"]}]
    assert report["time_range"] == {"first": 5, "last": 30}
    assert report["num_out_of_order"] == 2  # v at 5 and w at 7, both after 30
    assert report["num_missing"] == {"user_id": 0, "item_id": 0, "timestamp": 0}
    assert sum(span["count"] for span in report["times"]) == 5
    lengths, popularity = report["sequence_lengths"], report["item_popularity"]
    assert (lengths["min"], lengths["median"], lengths["max"]) == (1, 1, 3)
    assert lengths["histogram"] == [
        {"from": 1, "to": 1, "count": 2},
        {"from": 2, "to": 2, "count": 0},
        {"from": 3, "to": 3, "count": 1},
    ]
    assert popularity["by_rank"] == [{"rank": 1, "count": 3}, {"rank": 2, "count": 1}, {"rank": 3, "count": 1}]
    assert popularity["share_of_top_tenth"] == 0.6
    assert report["warnings"] == []
    assert report["expected"] is None


def test_length_histogram_takes_the_tail_in_its_last_bin(table, ingested):
    lengths = [*np.arange(1, 201).tolist(), 5000]
    users = np.repeat(np.arange(201), lengths)
    _, report = ingested(table(user_id=users, item_id=np.zeros(len(users), int), timestamp=np.zeros(len(users), int)))
    bins = report["sequence_lengths"]["histogram"]
    assert len(bins) <= 40
    assert sum(entry["count"] for entry in bins) == 201
    assert bins[-1]["to"] == 5000
    for entry in bins:
        assert entry["count"] == sum(entry["from"] <= length <= entry["to"] for length in lengths)
    assert all(after["from"] == before["to"] + 1 for before, after in itertools.pairwise(bins))


def test_same_log_gives_the_same_bytes(csv, tmp_path):
    rows = [(f"u{number % 50}", f"i{number % 7}", number) for number in range(2000)]
    config = IngestConfig(source=str(csv(*rows)), duplicates="last")
    for name in ("one", "two"):
        ingest(config, tmp_path / name, tmp_path / "downloads")
    for name in ("interactions.parquet", "data_report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_compressed_copy_gives_the_same_interactions(csv, ingested, tmp_path):
    path = csv(*((f"u{number % 5}", f"i{number}", number) for number in range(100)))
    (tmp_path / "copy.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert ingested(path)[0] == ingested(tmp_path / "copy.csv.gz")[0]
