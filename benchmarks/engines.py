"""DuckDB and Polars streaming on the same work: number the ids, drop rare users and items once, sort, write.

    python -m benchmarks.engines duckdb|polars LOG_FOLDER

The engine of the data stages was chosen by it. Prints one line of JSON; each engine needs only itself installed.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from glintru_model.memory import peak_resident_bytes

_LEAST = 5
_MEMORY_LIMIT = "3GiB"  # DuckDB's; Polars has no such setting


def run_duckdb(log: str, output: Path) -> int:
    """The work in SQL, out of core."""
    import duckdb

    connection = duckdb.connect(config={"memory_limit": _MEMORY_LIMIT, "temp_directory": str(output.parent / "spill")})
    for name in ("user", "item"):
        connection.execute(f"""
            CREATE TABLE {name}s AS
            SELECT CAST(row_number() OVER (ORDER BY {name}_id) - 1 AS INTEGER) AS {name}_code, {name}_id
            FROM (SELECT {name}_id FROM '{log}/*.parquet' GROUP BY {name}_id HAVING count(*) >= {_LEAST})
        """)
    connection.execute(f"""
        COPY (
            SELECT user_code, item_code, timestamp
            FROM '{log}/*.parquet' JOIN users USING (user_id) JOIN items USING (item_id)
            ORDER BY user_code, timestamp
        ) TO '{output}' (FORMAT parquet, COMPRESSION zstd)
    """)
    return int(connection.execute(f"SELECT count(*) FROM '{output}'").fetchall()[0][0])


def run_polars(log: str, output: Path) -> int:
    """The work as lazy frames on the streaming engine."""
    import polars as pl

    frame = pl.scan_parquet(f"{log}/*.parquet")
    codes = {}
    for name in ("user", "item"):
        counts = frame.group_by(f"{name}_id").agg(pl.len().alias("n")).filter(pl.col("n") >= _LEAST)
        ids = counts.select(f"{name}_id").sort(f"{name}_id").collect(engine="streaming")
        codes[name] = ids.with_row_index(f"{name}_code").with_columns(pl.col(f"{name}_code").cast(pl.Int32)).lazy()
    joined = frame.join(codes["user"], on="user_id").join(codes["item"], on="item_id")
    ordered = joined.select("user_code", "item_code", "timestamp").sort("user_code", "timestamp")
    ordered.sink_parquet(output, compression="zstd", engine="streaming")
    return int(pl.scan_parquet(output).select(pl.len()).collect().item())


def main() -> None:
    """Run one engine on one log."""
    engine, log = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=Path(log).parent) as folder:
        begin = time.perf_counter()
        kept = {"duckdb": run_duckdb, "polars": run_polars}[engine](log, Path(folder) / "sorted.parquet")
        seconds = time.perf_counter() - begin
    found = {"engine": engine, "kept": kept, "seconds": seconds, "cpu_seconds": time.process_time()}
    print(json.dumps({**found, "peak_gb": peak_resident_bytes() / 1e9}))


if __name__ == "__main__":
    main()
