"""How a cleaned log is distributed: lengths of histories, popularity of items, time."""

from typing import Any

import numpy as np

_NUM_BINS = 40
_NUM_RANKS = 60
_TYPE_NAMES = {"BIGINT": "int64", "DOUBLE": "float64", "VARCHAR": "string"}


def describe_events(connection: Any) -> dict[str, Any]:
    """Describe the table `events`.

    Args:
        connection: a DuckDB connection with `events`, which is not empty.

    Returns:
        `columns` (types), `time_range`, `num_repeats` (interactions beyond the first of the same user and item),
        `sequence_lengths` and `item_popularity`.
    """
    first, last, total, pairs = connection.execute("""
        SELECT min(timestamp), max(timestamp), count(*),
               (SELECT count(*) FROM (SELECT DISTINCT user_id, item_id FROM events))
        FROM events
    """).fetchall()[0]
    events = connection.table("events")
    types = {name: _TYPE_NAMES[str(kind)] for name, kind in zip(events.columns, events.types, strict=True)}
    del types["log_order"]
    connection.execute("""
        CREATE TABLE lengths AS SELECT count(*) AS n FROM events GROUP BY user_id;
        CREATE TABLE popularity AS SELECT count(*) AS n FROM events GROUP BY item_id;
    """)
    return {
        "columns": types,
        "time_range": {"first": first, "last": last},
        "num_repeats": total - pairs,
        "sequence_lengths": {**_summary(connection, "lengths"), "histogram": _length_histogram(connection)},
        "item_popularity": {**_summary(connection, "popularity"), **_popularity_curve(connection)},
    }


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
