"""The synthetic log can be learned: both models come close to the best possible ranking, popularity does not."""

import pytest

from glintru_model.config import (
    EvaluationConfig,
    GlintruConfig,
    GlintruRecommender,
    IngestConfig,
    SasrecConfig,
    SasrecRecommender,
    SequencesConfig,
    TrainingConfig,
)
from glintru_model.data.build import build_sequences
from glintru_model.data.ingest import ingest
from glintru_model.data.sequences import load_sequences
from glintru_model.data.synthetic import OracleScorer
from glintru_model.evaluation.baselines import Popularity
from glintru_model.evaluation.evaluate import mean_metrics, validation_metrics
from glintru_model.models.scorer import ModelScorer
from glintru_model.training.trainer import train

EVALUATION = EvaluationConfig()
TRAINING = TrainingConfig(learning_rate=3e-3, max_epochs=25, num_threads=1)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    directory = tmp_path_factory.mktemp("quickstart")
    ingest(IngestConfig(), directory / "interactions", directory / "downloads")
    build_sequences(directory / "interactions", directory / "sequences", SequencesConfig())
    dataset = load_sequences(directory / "sequences")
    oracle = OracleScorer.load(directory / "interactions" / "oracle.npz", dataset.vocabulary)
    return dataset, ndcg(oracle, dataset)


def ndcg(scorer, dataset):
    return mean_metrics(scorer, dataset, "test", EVALUATION)["ndcg_at_10"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        GlintruRecommender(architecture=GlintruConfig(embedding_dim=32), training=TRAINING),
        SasrecRecommender(architecture=SasrecConfig(embedding_dim=32), training=TRAINING),
    ],
    ids=lambda config: config.name,
)
def test_a_small_model_passes_80_percent_of_the_ceiling(quickstart, config):
    dataset, ceiling = quickstart
    model, _ = train(
        config, dataset, validate=lambda model: validation_metrics(ModelScorer(model), dataset, EVALUATION)
    )
    assert 0.8 * ceiling < ndcg(ModelScorer(model), dataset) < 1.02 * ceiling


def test_popularity_stays_far_below_the_ceiling(quickstart):
    dataset, ceiling = quickstart
    assert ndcg(Popularity(dataset), dataset) < 0.3 * ceiling
