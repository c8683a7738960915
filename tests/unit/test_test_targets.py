"""Test targets are touched in one stage, once; everything is chosen on validation."""

import json
import random

import pytest

from glintru_model import stages
from glintru_model.config import EvaluationConfig, IngestConfig, RegistryConfig, SequencesConfig, TuningConfig
from glintru_model.config_io import parse_recommender
from glintru_model.data.sequences import SequenceDataset

EVALUATION = EvaluationConfig(bootstrap_samples=100).model_dump_json()
TUNING = TuningConfig(num_trials=1, num_workers=1, max_epochs=1).model_dump_json()

pytestmark = pytest.mark.slow  # runs every stage


def recommender(name):
    settings = {
        "name": name,
        "architecture": {"max_seq_len": 8, "embedding_dim": 8, "num_heads": 2},
        "training": {"max_epochs": 2, "batch_size": 32},
    }
    return parse_recommender(json.dumps(settings), "test").model_dump_json()


@pytest.fixture
def asked(monkeypatch):
    """The splits whose targets were read since the list was last cleared."""
    splits, honest = [], SequenceDataset.cases

    def watched(self, split, *rest, **options):
        splits.append(split)
        return honest(self, split, *rest, **options)

    monkeypatch.setattr(SequenceDataset, "cases", watched)
    return splits


def test_only_evaluate_asks_for_test_targets_and_only_once(asked, tmp_path):
    log = tmp_path / "log.csv"
    rng = random.Random(0)
    rows = [f"{user},{rng.randrange(20)},{time}" for user in range(30) for time in range(8)]
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    at = {name: str(tmp_path / name) for name in ("interactions", "sequences", "report.html", "study.json")}

    def splits_of(stage, *arguments):
        asked.clear()
        stage(*arguments)
        return set(asked), len(asked)

    stages.ingest(IngestConfig(source=str(log)).model_dump_json(), str(tmp_path), at["interactions"])
    sequences = SequencesConfig().model_dump_json()
    assert splits_of(
        stages.build_sequences, sequences, EVALUATION, at["interactions"], at["sequences"], at["report.html"]
    ) == (set(), 0)
    finished = {}
    for name in ("glintru", "sasrec"):
        best, model, evaluated = (str(tmp_path / f"{name}-{part}") for part in ("best.json", "model", "evaluated"))
        trials = str(tmp_path / f"{name}-trials.json")
        stages.create_study(recommender(name), TUNING, name, f"journal:{tmp_path / name}.journal", "", at["study.json"])
        tuned, _ = splits_of(
            stages.tune, recommender(name), TUNING, EVALUATION, 0, at["study.json"], at["sequences"], "", trials
        )
        stages.select_hyperparameters(recommender(name), at["study.json"], [trials], "", best, at["report.html"])
        trained, _ = splits_of(stages.train, EVALUATION, best, at["sequences"], "", model)
        assert tuned == trained == {"validation"}
        tested, times = splits_of(stages.evaluate, EVALUATION, model, at["sequences"], "", evaluated, at["report.html"])
        assert tested == {"test"}
        assert times == 5  # the model and four baselines, each once
        finished[name] = (best, model, evaluated)
    concluded, _ = splits_of(
        stages.compare_and_register,
        RegistryConfig().model_dump_json(),
        at["interactions"],
        at["sequences"],
        "",
        finished,
        str(tmp_path / "summary.json"),
        at["report.html"],
    )
    assert "test" not in concluded
