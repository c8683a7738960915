"""The same input gives the same bytes, however many threads work on it and whether or not they spill to disk."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glintru_model.config import IngestConfig, SequencesConfig
from glintru_model.data import build, engine, ingest
from glintru_model.data.hashing import hash_file
from glintru_model.errors import StorageError

REAL_LOG = Path("../shared/data/ml-100k.parquet")
FILES = {"interactions": "interactions.parquet", "sequences": "sequences.arrow", "vocabulary": "vocabulary.arrow"}


@pytest.fixture
def hashes_of(tmp_path, monkeypatch):
    """Run ingest and build on so many threads, within so many MiB; returns the hash of each file."""

    def run(log, threads, engine_mib=None, spills=True, **settings):
        @contextmanager
        def open_engine(*arguments):
            with engine.open_engine(*arguments) as connection:
                connection.execute(f"SET threads = {threads}")
                if engine_mib:
                    connection.execute(f"SET memory_limit = '{engine_mib}MiB'")
                if not spills:
                    connection.execute("SET max_temp_directory_size = '0KiB'")
                yield connection

        for module in (ingest, build):
            monkeypatch.setattr(module, "open_engine", open_engine)
        interactions, sequences = tmp_path / "interactions", tmp_path / "sequences"
        ingest.ingest(IngestConfig(source=str(log)), interactions, tmp_path / "downloads")
        build.build_sequences(interactions, sequences, SequencesConfig(k_core=3, **settings))
        folders = {"interactions": interactions, "sequences": sequences, "vocabulary": sequences}
        return {name: hash_file(folders[name] / file) for name, file in FILES.items()}

    return run


def write_random_log(path, seed, rows):
    """Text ids and many ties in time, over several files."""
    draw = np.random.default_rng(seed)
    path.mkdir()
    for number in range(3):
        columns = {
            "user_id": [f"u{user}" for user in draw.zipf(1.4, rows) % 5_000],
            "item_id": [f"i{item}" for item in draw.zipf(1.4, rows) % 2_000],
            "timestamp": draw.integers(0, 1_000, rows),
        }
        pq.write_table(pa.table(columns), path / f"{number}.parquet", row_group_size=20_000)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "settings"), [(0, {}), (1, {"split": "temporal"})], ids=["leave one out", "temporal"])
def test_random_logs(hashes_of, tmp_path, seed, settings):
    log = write_random_log(tmp_path / "log", seed, 200_000)
    expected = hashes_of(log, threads=1, **settings)
    assert [hashes_of(log, threads, **settings) for threads in (2, 4)] == [expected] * 2
    with pytest.raises(StorageError, match="memory and disk ran out"):  # so it does spill within this limit
        hashes_of(log, 2, engine_mib=24, spills=False, **settings)
    assert hashes_of(log, 2, engine_mib=24, **settings) == expected


@pytest.mark.slow
@pytest.mark.skipif(not REAL_LOG.exists(), reason="the real logs are not here")
def test_a_real_log(hashes_of):
    expected = hashes_of(REAL_LOG, threads=1)
    assert [hashes_of(REAL_LOG, threads) for threads in (2, 4)] == [expected] * 2
