"""What the stages add to the functions that they call."""

import pytest

from glintru_model import stages
from glintru_model.config import EvaluationConfig, IngestConfig
from glintru_model.errors import DataError


def test_a_log_that_changed_since_it_was_resolved_is_not_kept_under_the_old_key(tmp_path):
    log, output = tmp_path / "log.csv", tmp_path / "interactions"
    log.write_text("user_id,item_id,timestamp\n1,1,1\n")
    settings, downloads = IngestConfig(source=str(log)).model_dump_json(), str(tmp_path / "downloads")
    fingerprint = stages.resolve_source(settings, downloads)
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
