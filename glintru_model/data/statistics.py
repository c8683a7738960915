"""How a cleaned log is distributed: lengths of histories, popularity of items, time."""

from typing import Any

import numpy as np

from glintru_model.data.engine import one_row, stream

_NUM_BINS = 40
_NUM_RANKS = 60
_NUM_SPANS = 60
_TYPE_NAMES = {"BIGINT": "int64", "DOUBLE": "float64", "VARCHAR": "string"}


def count_events(connection: Any) -> tuple[int, int, int]:
    """Make the tables `lengths` and `popularity` of the view `events`; returns the number of users, items, events."""
    connection.execute("""
        CREATE TABLE lengths AS SELECT count(*) AS n FROM events GROUP BY user_id;
        CREATE TABLE popularity AS SELECT count(*) AS n FROM events GROUP BY item_id;
    """)
    counted = one_row(
        connection, "SELECT count(*), (SELECT count(*) FROM popularity), coalesce(sum(n), 0) FROM lengths"
    )
    return int(counted[0]), int(counted[1]), int(counted[2])


def describe_events(connection: Any) -> dict[str, Any]:
    """Describe the view `events`, which is not empty, after `count_events`.

    Returns:
        `columns` (types), `time_range`, `num_out_of_order` (earlier than an event before them in the log),
        `sequence_lengths`, `item_popularity` and `times` (events by time).
    """
    first, last = one_row(connection, "SELECT min(timestamp), max(timestamp) FROM events")
    events = connection.table("events")
    types = {name: _TYPE_NAMES[str(kind)] for name, kind in zip(events.columns, events.types, strict=True)}
    num_out_of_order, histogram = _scan_times(connection, first, last)
    return {
        "columns": types,
        "time_range": {"first": first, "last": last},
        "num_out_of_order": num_out_of_order,
        "sequence_lengths": {**_summary(connection, "lengths"), "histogram": _length_histogram(connection)},
        "item_popularity": {**_summary(connection, "popularity"), **_popularity_curve(connection)},
        "times": histogram,
    }


def _scan_times(connection: Any, first: float, last: float) -> tuple[int, list[dict[str, float]]]:
    """Count the events that stand after a later one, and the events in each of 60 equal spans of time."""
    span, newest, late = (last - first) / _NUM_SPANS or 1, first, 0
    counts = np.zeros(_NUM_SPANS, dtype=np.int64)
    for batch in stream(connection, "SELECT timestamp FROM events"):
        times = batch.column(0).to_numpy()
        so_far = np.maximum.accumulate(np.concatenate([[newest], times]))
        late += int((times < so_far[1:]).sum())
        newest = so_far[-1]
        spans = np.minimum((times - first) / span, _NUM_SPANS - 1).astype(np.int64)
        counts += np.bincount(spans, minlength=_NUM_SPANS)
    return late, [{"from": first + span * number, "count": count} for number, count in enumerate(counts.tolist())]


def _summary(connection: Any, table: str) -> dict[str, float]:
    values = connection.table(table).aggregate("min(n), median(n), avg(n), max(n)").fetchall()[0]
    return dict(zip(("min", "median", "mean", "max"), values, strict=True))


def _length_histogram(connection: Any) -> list[dict[str, int]]:
    """Count histories by length, in bins of equal width up to the 99th percentile; the last bin takes the rest."""
    low, high, longest = connection.execute("SELECT min(n), quantile_disc(n, 0.99), max(n) FROM lengths").fetchall()[0]
    width = -(-(high - low + 1) // _NUM_BINS)
    last_bin = (high - low) // width
    counted = dict(
        connection.execute(
            "SELECT least((n - $low) // $width, $last), count(*) FROM lengths GROUP BY ALL",
            {"low": low, "width": width, "last": last_bin},
        ).fetchall()
    )
    bins = [
        {"from": low + number * width, "to": low + (number + 1) * width - 1, "count": counted.get(number, 0)}
        for number in range(last_bin + 1)
    ]
    bins[-1]["to"] = max(bins[-1]["to"], longest)
    return bins


def _popularity_curve(connection: Any) -> dict[str, Any]:
    """Interactions of the item of each rank, at ranks spaced as on a logarithmic axis, and what the top tenth has."""
    num_items = connection.execute("SELECT count(*) FROM popularity").fetchall()[0][0]
    ranks = np.unique(np.geomspace(1, num_items, _NUM_RANKS).round().astype(int)).tolist()
    connection.execute("CREATE TABLE ranked AS SELECT row_number() OVER (ORDER BY n DESC) AS rank, n FROM popularity")
    curve = connection.execute(
        "SELECT rank, n FROM ranked WHERE list_contains($ranks, rank) ORDER BY rank", {"ranks": ranks}
    ).fetchall()
    top = connection.execute(
        "SELECT sum(n) FILTER (rank <= greatest(1, $num_items // 10)) / sum(n) FROM ranked", {"num_items": num_items}
    ).fetchall()[0][0]
    return {"by_rank": [{"rank": rank, "count": n} for rank, n in curve], "share_of_top_tenth": top}
