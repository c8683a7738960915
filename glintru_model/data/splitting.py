"""Which part each event belongs to: 0 training, 1 validation, 2 test."""

from typing import Any

from glintru_model.config import SequencesConfig


def assign_parts(connection: Any, config: SequencesConfig) -> dict[str, Any]:
    """Create the view `parts`: `ordered` with each event's part.

    Args:
        connection: a DuckDB connection with the tables `users` and `ordered`.
        config: the split.

    Returns:
        The split's name and settings, for the manifest.
    """
    if config.split == "leave_one_out":
        _leave_one_out(connection)
        return {"split": config.split}
    return {"split": config.split, **_temporal(connection, config)}


def _leave_one_out(connection: Any) -> None:
    connection.execute("""
        CREATE VIEW parts AS
        SELECT ordered.*, CASE WHEN n < 3 OR position < history_end - 2 THEN 0
                               WHEN position = history_end - 2 THEN 1 ELSE 2 END AS part
        FROM ordered JOIN (SELECT user_row, n, sum(n) OVER (ORDER BY user_row) AS history_end FROM users)
        USING (user_row)
    """)


def _temporal(connection: Any, config: SequencesConfig) -> dict[str, Any]:
    """Cut at the quantiles of all events' times; an event at the very time of a cut falls before it."""
    cuts = {}
    for name in ("validation", "test"):
        quantile = getattr(config, f"{name}_quantile")
        cuts[name] = connection.execute(
            """
            SELECT min(timestamp) FROM (
                SELECT timestamp, sum(n) OVER (ORDER BY timestamp) AS older, sum(n) OVER () AS total
                FROM (SELECT timestamp, count(*) AS n FROM ordered GROUP BY timestamp)
            ) WHERE older >= ? * total
            """,
            [quantile],
        ).fetchall()[0][0]
    connection.execute("SET VARIABLE validation_cut = ?", [cuts["validation"]])
    connection.execute("SET VARIABLE test_cut = ?", [cuts["test"]])
    connection.execute("""
        CREATE VIEW parts AS
        SELECT *, CASE WHEN timestamp <= getvariable('validation_cut') THEN 0
                       WHEN timestamp <= getvariable('test_cut') THEN 1 ELSE 2 END AS part
        FROM ordered
    """)
    return {
        "validation_quantile": config.validation_quantile,
        "test_quantile": config.test_quantile,
        "validation_cut": cuts["validation"],
        "test_cut": cuts["test"],
    }
