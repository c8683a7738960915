"""Ids and times of a log: their types, and what is refused."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from tests.unit.data.logs import NOON, column

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
