"""A new model against the registered champion, on the validation users of the new model's dataset."""

from pathlib import Path

import numpy as np

from glintru_model.config import EvaluationConfig, RegistryConfig
from glintru_model.data.sequences import SequenceDataset, load_vocabulary
from glintru_model.data.trained_events import count_trained
from glintru_model.evaluation.foreign import rank_by_own_vocabulary
from glintru_model.evaluation.intervals import paired_bootstrap
from glintru_model.evaluation.metrics import FloatArray, metrics_from_ranks
from glintru_model.layout import VOCABULARY_FILE
from glintru_model.models.files import load_model
from glintru_model.models.scorer import ModelScorer
from glintru_model.progress import say
from glintru_model.serving.alias_rule import Contest, Refusal
from glintru_model.serving.registry import Champion, Judge


def make_judge(
    model_dir: Path, dataset: SequenceDataset, evaluation: EvaluationConfig, registry: RegistryConfig
) -> Judge:
    """Bind a newcomer and its dataset to the comparison that the registry asks for.

    Both models rank the same users' validation targets, each through its own vocabulary. The champion is refused as
    a yardstick where its training saw any of these events: it would know the answers.
    """

    def judge(champion: Champion) -> Contest | Refusal:
        cases = dataset.cases("validation")
        if champion.dataset_hash != dataset.manifest["dataset_hash"]:
            if champion.trained_events is None:
                return Refusal("it comes from another dataset, without a record of what it was trained on")
            seen = count_trained(champion.trained_events, dataset, cases)
            if seen:
                return Refusal(f"its training saw {seen:,} of the {len(cases):,} validation events of this dataset")
            say(f"the dataset has changed: scoring champion version {champion.version} again on the new users")
        ours, theirs = (
            _values(directory, dataset, evaluation, registry.metric) for directory in (model_dir, champion.model_dir)
        )
        pair = paired_bootstrap(ours, theirs, evaluation.bootstrap_samples, evaluation.seed)
        return Contest(
            metric=registry.metric,
            num_users=len(cases),
            newcomer=float(np.mean(ours)),
            champion=float(np.mean(theirs)),
            difference=pair.difference,
            low=pair.low,
            high=pair.high,
            p_value=pair.p_value,
        )

    return judge


def _values(directory: Path, dataset: SequenceDataset, config: EvaluationConfig, metric: str) -> FloatArray:
    model, _ = load_model(directory)
    vocabulary = load_vocabulary(directory / VOCABULARY_FILE)
    ranks = rank_by_own_vocabulary(ModelScorer(model), vocabulary, dataset, dataset.cases("validation"), config)
    return metrics_from_ranks(ranks, config.cutoffs)[metric]
