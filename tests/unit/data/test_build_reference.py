"""Splits and vocabulary against a pandas reference, on real and on random logs: nothing leaks, is lost or invented."""

import shutil
from collections import Counter

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glintru_model.config import SequencesConfig
from glintru_model.errors import DataError
from tests.unit.data.splits import LEAVE_ONE_OUT, TEMPORAL, build, histories, reference

REAL = [
    ("ml-100k", LEAVE_ONE_OUT),
    ("ml-100k", SequencesConfig(split="temporal")),
    ("ml-100k", SequencesConfig(split="temporal", k_core=10, max_history=50)),
    ("amazon-beauty", SequencesConfig(k_core=8)),
    ("amazon-beauty", SequencesConfig(split="temporal", k_core=5)),
    ("amazon-video-games", SequencesConfig(k_core=5, max_history=20)),
    pytest.param("ml-1m", SequencesConfig(k_core=20), marks=pytest.mark.slow),
    pytest.param("ml-1m", SequencesConfig(split="temporal", k_core=5, max_history=100), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "config"), REAL)
def test_real_log_equals_the_pandas_reference(real_log, tmp_path, name, config):
    shutil.copy(real_log(name), tmp_path / "interactions.parquet")
    dataset = build(tmp_path, config)
    expected, vocabulary = reference(pd.read_parquet(tmp_path / "interactions.parquet"), config)
    assert dataset.vocabulary.item_ids.to_pylist() == vocabulary
    assert histories(dataset) == expected


events = st.tuples(st.integers(0, 6), st.integers(0, 8), st.integers(0, 15))

configs = st.builds(
    lambda base, k_core, max_history: base.model_copy(update={"k_core": k_core, "max_history": max_history}),
    st.sampled_from([LEAVE_ONE_OUT, TEMPORAL, SequencesConfig(split="temporal")]),
    st.sampled_from([0, 2, 3]),
    st.sampled_from([0, 1, 3]),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(events, min_size=1, max_size=80), config=configs)
def test_random_logs(interactions, rows, config):
    directory = interactions(rows)
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    expected, vocabulary = reference(log, config)
    if any(all(not parts[part] for parts in expected.values()) for part in (1, 2)):
        with pytest.raises(DataError, match=r"part is empty|no user is left"):
            build(directory, config)
        return
    dataset = build(directory, config)
    # Order kept, nothing lost or invented but what the manifest counts.
    assert histories(dataset) == expected
    assert dataset.vocabulary.item_ids.to_pylist() == vocabulary
    manifest = dataset.manifest
    assert manifest["num_train"] + manifest["num_validation"] + manifest["num_test"] == len(dataset.item_ids)
    # The training part alone decides the vocabulary's counts.
    trained = [item for train, _, _ in expected.values() for item in train]
    assert dataset.vocabulary.train_counts.tolist() == [trained.count(item) for item in vocabulary]
    dropped = manifest["num_dropped_validation"] + manifest["num_dropped_test"]
    if config.k_core == config.max_history == 0:
        assert manifest["num_interactions"] + dropped == len(rows)
        pairs = [(user, item) for user, item, _ in rows]
        if not dropped:
            assert manifest["num_repeats"] == len(pairs) - len(set(pairs))
            assert manifest["num_duplicates"] == len(rows) - len(set(rows))
    if config.split == "temporal":
        # Every training event is before every other event, for everyone.
        newest = log[log.timestamp <= manifest["validation_cut"]]
        assert Counter(trained) <= Counter(newest.item_id)
        if config.k_core == config.max_history == 0:
            assert len(newest) == len(trained)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(events, min_size=10, max_size=80),
    later=st.lists(events, max_size=40),
    k_core=st.sampled_from([0, 2]),
)
def test_nothing_after_the_cut_changes_what_is_trained_on(interactions, rows, later, k_core):
    config = SequencesConfig(split="temporal", validation_start=8, test_start=12, k_core=k_core)
    rows = [*rows, (0, 0, 1), (0, 0, 2), (1, 0, 1), (1, 0, 2), (0, 0, 9), (0, 0, 13)]
    changed = [row for row in rows if row[2] < 8] + [(user, item, 8 + time % 4) for user, item, time in later]
    changed += [(0, 0, 9), (0, 0, 13)]
    before, after = (build(interactions(log), config) for log in (rows, changed))
    assert after.vocabulary.item_ids.to_pylist() == before.vocabulary.item_ids.to_pylist()
    assert after.vocabulary.train_counts.tolist() == before.vocabulary.train_counts.tolist()
    assert after.vocabulary.recent_train_counts.tolist() == before.vocabulary.recent_train_counts.tolist()
    trained = [{u: train for u, (train, _, _) in histories(dataset).items() if train} for dataset in (before, after)]
    assert trained[0] == trained[1]
