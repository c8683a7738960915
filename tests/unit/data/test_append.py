"""A later log added to earlier interactions, and the indices that stay."""

from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glintru_model.config import IngestConfig, SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.ingest import ingest, resolve_source
from glintru_model.data.sequences import load_sequences
from glintru_model.errors import DataError


@pytest.fixture
def step(tmp_path):
    """Ingest rows, after earlier interactions where a name is given; returns (rows, report)."""

    def run(rows, name, append_to="", **changes):
        path = tmp_path / f"{name}.csv"
        path.write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
        earlier = str(tmp_path / append_to) if append_to else ""
        config = IngestConfig(source=str(path), append_to=earlier, **changes)
        report = ingest(config, tmp_path / name, tmp_path / "downloads")
        table = pq.read_table(tmp_path / name / "interactions.parquet")
        return [tuple(row.values()) for row in table.to_pylist()], report

    return run


FIRST = [("u", "a", 1), ("u", "b", 2), ("v", "a", 3), ("u", "c", 4)]


def test_only_new_events_are_added_after_the_earlier_ones(step, capsys):
    step(FIRST, "one")
    rows, report = step([("u", "c", 4), ("w", "d", 2), ("v", "a", 3), ("v", "a", 5)], "two", "one")
    assert rows == [*FIRST, ("w", "d", 2), ("v", "a", 5)]
    assert report["appended"] == {
        "num_before": 4,
        "num_known": 2,
        "num_new": 2,
        "num_new_users": 1,
        "num_new_items": 1,
    }
    assert [entry["step"] for entry in report["steps"]] == ["read", "appended to 4 interactions"]
    assert report["counts"] == {"num_users": 3, "num_items": 4, "num_interactions": 6}
    assert "2 of 4 interactions are new, 1 items are" in capsys.readouterr().out


def test_a_log_that_is_known_adds_nothing(step):
    step(FIRST, "one")
    rows, report = step(FIRST, "two", "one")
    assert rows == FIRST
    assert report["appended"]["num_new"] == 0


def test_the_whole_way_keeps_every_index(step, tmp_path):
    histories = [(user, item, time) for user in "uvw" for time, item in enumerate("abcab")]
    step(histories, "one")
    build_sequences(tmp_path / "one", tmp_path / "one-s", SequencesConfig())
    step([(user, item, 10 + time) for user in "uvwx" for time, item in enumerate("zyzzz")], "two", "one")
    config = SequencesConfig(keep_indices_of=str(tmp_path / "one-s"))
    build_sequences(tmp_path / "two", tmp_path / "two-s", config)
    old, new = (load_sequences(tmp_path / name).vocabulary.item_ids.to_pylist() for name in ("one-s", "two-s"))
    assert new == [*old, "z", "y"]


def test_earlier_interactions_of_other_ids_are_refused(step, tmp_path):
    step([(1, 2, 3)], "one")
    with pytest.raises(DataError, match="user_id is BIGINT there and VARCHAR in this log"):
        step(FIRST, "two", "one")
    assert not (tmp_path / "two").exists()


def test_no_earlier_interactions(step, tmp_path):
    with pytest.raises(DataError, match=r"no interactions\.parquet there, expected the output of ingest"):
        step(FIRST, "two", "nowhere")


def test_the_fingerprint_follows_what_is_appended_to(step, tmp_path):
    step(FIRST, "one")
    config = IngestConfig(source=str(tmp_path / "one.csv"), append_to=str(tmp_path / "one"))
    before = resolve_source(config, tmp_path).fingerprint
    step(FIRST[:3], "other")
    (tmp_path / "other" / "interactions.parquet").replace(tmp_path / "one" / "interactions.parquet")
    assert resolve_source(config, tmp_path).fingerprint != before


events = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=events, second=events)
def test_no_event_is_lost_or_invented(step, first, second):
    step(first, "one")
    rows, report = step(second, "two", "one")
    known = set(first)
    expected = first + [event for event in second if event not in known]
    assert rows == expected
    assert report["appended"]["num_new"] == len(expected) - len(first)
    assert Counter(rows) >= Counter(first)
