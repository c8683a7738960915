"""The models there are."""

from collections.abc import Callable

from glintru_model.config import GlintruRecommender, SasrecRecommender
from glintru_model.errors import ConfigError
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.glintru import GLINTRU
from glintru_model.models.sasrec import SASRec

MODELS: dict[str, Callable[..., SequentialRecommender]] = {"glintru": GLINTRU, "sasrec": SASRec}


def build_model(config: GlintruRecommender | SasrecRecommender, num_items: int) -> SequentialRecommender:
    """Build a model with fresh weights from torch's global generator.

    Raises:
        ConfigError: there is no item to recommend.
    """
    if num_items < 1:
        raise ConfigError(f"num_items {num_items}: a model needs at least 1 item")
    return MODELS[config.name](config.architecture, num_items)
