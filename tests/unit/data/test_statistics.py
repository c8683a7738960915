"""What the data report says of a log, and that it and the interactions are the same bytes each time."""

import gzip
import itertools

import numpy as np

from glintru_model.config import IngestConfig
from glintru_model.data.ingest import ingest


def test_report_by_hand(csv, ingested):
    log = [("u", "a", 10), ("u", "b", 20), ("u", "a", 30), ("v", "a", 5), ("w", "c", 7)]
    _, report = ingested(csv(*log))
    assert report["counts"] == {"num_users": 3, "num_items": 3, "num_interactions": 5}
    assert report["steps"] == [{"step": "read", **report["counts"]}]
    assert report["time_range"] == {"first": 5, "last": 30}
    assert report["num_out_of_order"] == 2  # v at 5 and w at 7, both after 30
    assert report["num_missing"] == {"user_id": 0, "item_id": 0, "timestamp": 0}
    assert sum(span["count"] for span in report["times"]) == 5
    lengths, popularity = report["sequence_lengths"], report["item_popularity"]
    assert (lengths["min"], lengths["median"], lengths["max"]) == (1, 1, 3)
    assert lengths["histogram"] == [
        {"from": 1, "to": 1, "count": 2},
        {"from": 2, "to": 2, "count": 0},
        {"from": 3, "to": 3, "count": 1},
    ]
    assert popularity["by_rank"] == [{"rank": 1, "count": 3}, {"rank": 2, "count": 1}, {"rank": 3, "count": 1}]
    assert popularity["share_of_top_tenth"] == 0.6
    assert report["warnings"] == []
    assert report["expected"] is None


def test_length_histogram_takes_the_tail_in_its_last_bin(table, ingested):
    lengths = [*np.arange(1, 201).tolist(), 5000]
    users = np.repeat(np.arange(201), lengths)
    _, report = ingested(table(user_id=users, item_id=np.zeros(len(users), int), timestamp=np.zeros(len(users), int)))
    bins = report["sequence_lengths"]["histogram"]
    assert len(bins) <= 40
    assert sum(entry["count"] for entry in bins) == 201
    assert bins[-1]["to"] == 5000
    for entry in bins:
        assert entry["count"] == sum(entry["from"] <= length <= entry["to"] for length in lengths)
    assert all(after["from"] == before["to"] + 1 for before, after in itertools.pairwise(bins))


def test_same_log_gives_the_same_bytes(csv, tmp_path):
    rows = [(f"u{number % 50}", f"i{number % 7}", number) for number in range(2000)]
    config = IngestConfig(source=str(csv(*rows)), duplicates="last")
    for name in ("one", "two"):
        ingest(config, tmp_path / name, tmp_path / "downloads")
    for name in ("interactions.parquet", "data_report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_compressed_copy_gives_the_same_interactions(csv, ingested, tmp_path):
    path = csv(*((f"u{number % 5}", f"i{number}", number) for number in range(100)))
    (tmp_path / "copy.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert ingested(path)[0] == ingested(tmp_path / "copy.csv.gz")[0]
