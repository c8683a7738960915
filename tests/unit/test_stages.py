"""What the stages add to the functions that they call."""

import pytest

from glintru_model import stages
from glintru_model.config import EvaluationConfig, IngestConfig, SasrecRecommender, SequencesConfig, TrainingConfig
from glintru_model.errors import DataError


def resolve(ingest, downloads="", sequences=None, training=None):
    """What the first step of a run says of these settings."""
    recommender = SasrecRecommender(training=training or TrainingConfig()).model_dump_json()
    return stages.resolve_source(ingest, (sequences or SequencesConfig()).model_dump_json(), [recommender], downloads)


def test_a_log_that_changed_since_it_was_resolved_is_not_kept_under_the_old_key(tmp_path):
    log, output = tmp_path / "log.csv", tmp_path / "interactions"
    log.write_text("user_id,item_id,timestamp\n1,1,1\n")
    settings, downloads = IngestConfig(source=str(log)).model_dump_json(), str(tmp_path / "downloads")
    fingerprint = resolve(settings, downloads)
    assert stages.ingest(settings, downloads, str(output), fingerprint)["num_interactions"] == 1
    log.write_text("user_id,item_id,timestamp\n1,1,1\n1,2,2\n")
    with pytest.raises(DataError, match=r"log\.csv: changed since the run began"):
        stages.ingest(settings, downloads, str(tmp_path / "other"), fingerprint)
    assert not (tmp_path / "other").exists()


def test_what_is_no_result_of_tuning_is_refused(tmp_path):
    best = tmp_path / "best.json"
    best.write_text("{}")
    with pytest.raises(DataError, match=r"best\.json: no 'recommender' in it"):
        stages.train(EvaluationConfig().model_dump_json(), str(best), str(tmp_path), "", str(tmp_path / "model"))


@pytest.fixture
def earlier(tmp_path):
    """A folder with what earlier sequences and an earlier model have in it, and settings that name it."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    for name in ("vocabulary.arrow", "model.safetensors", "config.json"):
        (folder / name).write_text(name)
    return folder, SequencesConfig(keep_indices_of=str(folder)), TrainingConfig(warm_start_from=str(folder))


@pytest.mark.parametrize(
    ("taken", "changed"),
    [
        ("sequences", "vocabulary.arrow"),
        ("training", "model.safetensors"),
        ("training", "config.json"),
        ("training", "vocabulary.arrow"),
    ],
)
def test_an_earlier_output_that_changed_under_its_path_is_another_key(tmp_path, earlier, taken, changed):
    folder, sequences, training = earlier
    ingest = IngestConfig().model_dump_json()
    settings = {"sequences": sequences} if taken == "sequences" else {"training": training}
    before = resolve(ingest, **settings)
    assert resolve(ingest, **settings) == before
    (folder / changed).write_text("another month's")
    assert resolve(ingest, **settings) != before
    # The log is the same, so ingest takes either key for its own.
    output = tmp_path / "interactions"
    small = IngestConfig(synthetic={"num_users": 20, "num_items": 40, "num_clusters": 4, "max_length": 12})
    key = resolve(small.model_dump_json(), **settings)
    assert stages.ingest(small.model_dump_json(), "", str(output), key)["num_users"] == 20


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"sequences": SequencesConfig(keep_indices_of="gone")}, "sequences.keep_indices_of 'gone'"),
        ({"training": TrainingConfig(warm_start_from="gone")}, "models.sasrec.training.warm_start_from 'gone'"),
    ],
)
def test_an_earlier_output_that_is_not_there_is_missed_before_anything_runs(settings, setting):
    with pytest.raises(DataError, match=setting.replace(".", r"\.") + r": no vocabulary\.arrow there"):
        resolve(IngestConfig().model_dump_json(), **settings)
