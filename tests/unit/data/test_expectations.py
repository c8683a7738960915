"""Configured expectations and the time window: what holds, and what ends the run."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from glintru_model.config import IngestConfig, SequencesConfig
from tests.unit.data.logs import good


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


# -- the time window


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
