"""Ratings, duplicates and the time window of a log, against tables worked by hand and plain references."""

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glintru_model.config import IngestConfig
from glintru_model.data.ingest import ingest
from tests.unit.data.logs import column


@pytest.fixture
def ingest_table(tmp_path):
    """Run ingest on a source with settings; returns the interactions as a data frame."""

    def run(source, **filters):
        ingest(IngestConfig(source=str(source), **filters), tmp_path / "out", tmp_path / "downloads")
        return pd.read_parquet(tmp_path / "out" / "interactions.parquet")

    return run


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


def test_no_user_left_after_min_rating(csv, refused):
    path = csv(("u", "a", 1, 3), header="user_id,item_id,timestamp,rating")
    assert "no user is left after 'min_rating 4': before it there were 1 users" in refused(path, min_rating=4)


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


# -- all of them


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
