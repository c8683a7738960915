"""The search space that the config fields declare, and configs built from points of it.

A hyperparameter's name is its dotted path in the recommender's config, e.g. `training.learning_rate`.
"""

from dataclasses import dataclass
from typing import Any

from glintru_model.config import Frozen, GlintruRecommender, SasrecRecommender
from glintru_model.config_io import parse

Recommender = GlintruRecommender | SasrecRecommender
Values = dict[str, float | int]
_SECTIONS = ("architecture", "training")


@dataclass(frozen=True)
class Range:
    """Where a hyperparameter may lie, bounds included."""

    low: float
    high: float
    log: bool
    integer: bool


def search_space(recommender: Recommender) -> dict[str, Range]:
    """Collect the ranges; each is widened, where needed, to hold the configured value.

    That value is tried first, so tuning cannot end below the configured settings. A logarithmic range cannot hold
    a configured 0 and becomes a linear one.
    """
    configured, space = configured_values(recommender), {}
    for section in _SECTIONS:
        settings: Frozen = getattr(recommender, section)
        for field, search in settings.search_space().items():
            name = f"{section}.{field}"
            low, high = min(search.low, configured[name]), max(search.high, configured[name])
            integer = type(settings).model_fields[field].annotation is int
            space[name] = Range(low, high, log=search.log and low > 0, integer=integer)
    return space


def configured_values(recommender: Recommender) -> Values:
    """Read the tunable hyperparameters' values out of a config."""
    return {
        f"{section}.{field}": getattr(getattr(recommender, section), field)
        for section in _SECTIONS
        for field in getattr(recommender, section).search_space()
    }


def suggest(trial: Any, space: dict[str, Range]) -> Values:
    """Let an Optuna trial choose a point of the space."""
    values: Values = {}
    for name, found in space.items():
        if found.integer:
            values[name] = trial.suggest_int(name, int(found.low), int(found.high), log=found.log)
        else:
            values[name] = trial.suggest_float(name, found.low, found.high, log=found.log)
    return values


def with_values(recommender: Recommender, values: dict[str, Any]) -> Recommender:
    """Lay values, under dotted names, over a config.

    Raises:
        ConfigError: a name or a value that the config refuses.
    """
    settings = recommender.model_dump()
    for name, value in values.items():
        section, _, field = name.partition(".")
        settings[section] = {**settings[section], field: value}
    return parse(type(recommender), settings, "tuned settings")
