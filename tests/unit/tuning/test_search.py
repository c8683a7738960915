"""The search space as the config declares it, and configs built from its points."""

import optuna
import pytest

from glintru_model.config import GlintruRecommender, SasrecRecommender, TrainingConfig
from glintru_model.errors import ConfigError
from glintru_model.tuning.search import Range, configured_values, search_space, suggest, with_values


def test_space_is_what_the_fields_declare():
    assert search_space(GlintruRecommender()) == {
        "architecture.dropout_rate": Range(0.1, 0.6, log=False, integer=False),
        "training.learning_rate": Range(3e-4, 1e-2, log=True, integer=False),
        "training.weight_decay": Range(1e-3, 0.3, log=True, integer=False),
    }


@pytest.mark.parametrize(
    ("weight_decay", "expected"),
    [
        (0.02, Range(1e-3, 0.3, log=True, integer=False)),
        (1e-5, Range(1e-5, 0.3, log=True, integer=False)),
        (0.5, Range(1e-3, 0.5, log=True, integer=False)),
        (0.0, Range(0.0, 0.3, log=False, integer=False)),
    ],
)
def test_range_is_widened_to_hold_the_configured_value(weight_decay, expected):
    recommender = SasrecRecommender(training=TrainingConfig(weight_decay=weight_decay))
    assert search_space(recommender)["training.weight_decay"] == expected


def test_point_of_the_space_becomes_a_config_and_nothing_else_changes():
    recommender = GlintruRecommender(training=TrainingConfig(seed=7))
    values = {"architecture.dropout_rate": 0.33, "training.learning_rate": 0.004}
    tuned = with_values(recommender, values)
    assert type(tuned) is GlintruRecommender
    assert configured_values(tuned) == {**configured_values(recommender), **values}
    changed = tuned.model_dump()
    changed["architecture"]["dropout_rate"] = recommender.architecture.dropout_rate
    changed["training"]["learning_rate"] = recommender.training.learning_rate
    assert changed == recommender.model_dump()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture.dropout_rate": 1.5}, r"tuned settings: .*dropout_rate: found 1\.5"),
        ({"training.lerning_rate": 0.1}, r"lerning_rate.*did you mean 'learning_rate'"),
    ],
)
def test_impossible_point_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        with_values(SasrecRecommender(), values)


def test_suggestions_lie_in_the_space_and_are_of_its_type():
    space = {"a.rate": Range(1e-4, 1e-1, log=True, integer=False), "a.size": Range(2, 9, log=False, integer=True)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        values = suggest(study.ask(), space)
        assert 1e-4 <= values["a.rate"] <= 1e-1
        assert isinstance(values["a.size"], int)
        assert 2 <= values["a.size"] <= 9
