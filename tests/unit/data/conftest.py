"""What the data tests share: small logs on disk, and where the real ones are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REAL_LOGS = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def interactions(tmp_path: Path) -> Callable[[list[tuple[Any, ...]]], Path]:
    """Write rows (user, item, timestamp) as ingest would leave them; returns the directory."""

    def write(rows: list[tuple[Any, ...]]) -> Path:
        directory = tmp_path / "interactions"
        directory.mkdir(exist_ok=True)
        users, items, timestamps = zip(*rows, strict=True)
        table = pa.table({"user_id": list(users), "item_id": list(items), "timestamp": list(timestamps)})
        pq.write_table(table, directory / "interactions.parquet")
        return directory

    return write


@pytest.fixture
def real_log() -> Callable[[str], Path]:
    """Find a real interaction log, or skip."""

    def find(name: str) -> Path:
        path = REAL_LOGS / f"{name}.parquet"
        if not path.is_file():
            pytest.skip(f"{name} is not here")
        return path

    return find
