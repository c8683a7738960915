"""Logs larger than memory: the limit is obeyed, long histories are whole, a disk that fills up is named."""

import json
import resource
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from glintru_model.config import IngestConfig, SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.engine import leave_room, one_row, open_engine, stream
from glintru_model.data.ingest import ingest
from glintru_model.data.sequences import load_sequences
from glintru_model.errors import StorageError
from tests.unit.data.logs import NOON


@pytest.mark.slow
def test_a_user_with_a_million_events(tmp_path):
    times = np.random.default_rng(0).permutation(1_000_000)
    users = np.concatenate([np.full(1_000_000, 5), [4] * 4, [6] * 4])
    table = pa.table(
        {
            "user_id": users,
            "item_id": np.concatenate([times % 1000, [1, 2, 3, 4] * 2]),
            "timestamp": np.concatenate([times, [1, 2, 3, 4] * 2]),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    ingest(IngestConfig(source=str(tmp_path / "log.parquet")), tmp_path / "i", tmp_path / "d")
    build_sequences(tmp_path / "i", tmp_path / "s", SequencesConfig())
    dataset = load_sequences(tmp_path / "s")
    assert np.diff(dataset.offsets).tolist() == [4, 1_000_000, 4]
    ids = np.asarray(dataset.vocabulary.item_ids)[dataset.item_ids[4:1_000_004] - 1]
    assert (ids == np.arange(1_000_000) % 1000).all()


@contextmanager
def no_file_over(num_bytes):
    """Let no file of this process grow larger: it meets what a full disk would say, in other words."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_is_named_in_plain_words(tmp_path):
    rng, count = np.random.default_rng(0), 200_000
    columns = {"user_id": rng.integers(0, 5_000, count), "item_id": rng.integers(0, 900, count)}
    log = tmp_path / "log.parquet"
    pq.write_table(pa.table({**columns, "timestamp": rng.integers(NOON, NOON + 10**7, count)}), log)
    config = IngestConfig(source=str(log))
    with no_file_over(200_000), pytest.raises(StorageError) as caught:
        ingest(config, tmp_path / "i", tmp_path / "d")
    assert str(caught.value).startswith(f"{log}: cannot write {tmp_path}/.i.")
    assert str(caught.value).endswith(".tmp/interactions.parquet: File too large")
    ingest(config, tmp_path / "i", tmp_path / "d")
    with no_file_over(200_000), pytest.raises(StorageError) as caught:
        build_sequences(tmp_path / "i", tmp_path / "s", SequencesConfig())
    assert str(caught.value) == f"{tmp_path}/s: cannot write: File too large"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i", "log.parquet"]


def test_a_spill_that_does_not_fit_is_named_without_advice_on_the_engine(tmp_path):
    def sort():
        with open_engine(tmp_path / "spill", "the log", 1) as connection:
            connection.execute("SET memory_limit = '40MiB'")
            connection.execute("SET max_temp_directory_size = '1MiB'")
            for _ in stream(connection, "SELECT i, hash(i) AS h FROM range(3_000_000) AS numbers(i) ORDER BY h"):
                pass

    with pytest.raises(StorageError) as caught:
        sort()
    message = str(caught.value)
    assert message.startswith("the log: memory and disk ran out under memory_gib 1: ")
    assert "max_temp_directory_size" not in message


@pytest.mark.parametrize(("held_mib", "share_mib"), [(0, 665), (100, 665), (353, 465), (4_000, 204)])
def test_what_is_held_beside_the_engine_is_taken_from_its_share(tmp_path, held_mib, share_mib):
    with open_engine(tmp_path / "spill", "the log", 1) as connection:
        leave_room(connection, 1, held_mib << 20)
        [found] = one_row(connection, "SELECT current_setting('memory_limit')")
    number, unit = found.split()
    assert unit == "MiB"
    assert float(number) == pytest.approx(share_mib, abs=1)


RUN = """
    import json, resource, sys
    from pathlib import Path
    from glintru_model.config import IngestConfig, SequencesConfig
    from glintru_model.data.build import build_sequences
    from glintru_model.data.ingest import ingest
    from glintru_model.errors import GlintruError
    from glintru_model.memory import peak_resident_bytes
    log, work, memory, file_limit = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    try:
        if not (work / "i").exists():
            ingest(IngestConfig(source=log, memory_gib=memory), work / "i", work / "d")
        if file_limit:
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        build_sequences(work / "i", work / "s", SequencesConfig(k_core=2, memory_gib=memory))
    except GlintruError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
    else:
        print(json.dumps({"peak": peak_resident_bytes()}))
"""


def run_apart(log, work, memory, file_limit=0):
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(log), str(work), str(memory), str(file_limit)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def large_log(tmp_path_factory):
    """Thirty million events: over a gigabyte as they are sorted."""
    folder = tmp_path_factory.mktemp("large")
    for part in range(6):
        rng = np.random.default_rng(part)
        size = 5_000_000
        columns = {"user_id": rng.integers(0, 300_000, size), "item_id": rng.integers(0, 50_000, size)}
        pq.write_table(
            pa.table({**columns, "timestamp": rng.integers(NOON, NOON + 10**7, size)}), folder / f"{part}.parquet"
        )
    return folder


@pytest.mark.slow
def test_the_memory_limit_is_obeyed_and_the_disk_that_fills_is_named(large_log, tmp_path):
    found = run_apart(large_log, tmp_path, memory=1)
    assert found.get("peak", 1e12) <= 1.0 * 2**30, found
    before = (tmp_path / "s" / "manifest.json").read_bytes()
    # No file may grow over 32 MB: what would be spilled, and what would be written, meets a disk that is full.
    failed = run_apart(large_log, tmp_path, memory=1, file_limit=32 << 20)
    assert failed["kind"] == "StorageError", failed
    assert "\\n" not in failed["error"]
    assert (tmp_path / "s" / "manifest.json").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.slow
def test_the_memory_limit_is_obeyed_with_long_text_ids(tmp_path):
    rng, count = np.random.default_rng(0), 6_000_000
    columns = {"user_id": rng.integers(0, 4_000_000, count), "item_id": rng.integers(0, 1_000_000, count)}
    text = {
        name: pc.binary_join_element_wise("0" * 24, pa.array(numbers).cast(pa.string()), "-")
        for name, numbers in columns.items()
    }
    pq.write_table(pa.table({**text, "timestamp": rng.integers(NOON, NOON + 10**7, count)}), tmp_path / "log.parquet")
    found = run_apart(tmp_path / "log.parquet", tmp_path, memory=1)
    assert found.get("peak", 1e12) <= 1.0 * 2**30, found
