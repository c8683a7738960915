"""Training that begins with an earlier model's weights, on a catalogue that has grown."""

from pathlib import Path

from glintru_model.data.sequences import Vocabulary, load_vocabulary
from glintru_model.errors import DataError
from glintru_model.layout import VOCABULARY_FILE
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.files import load_model


def warm_start(model: SequentialRecommender, vocabulary: Vocabulary, directory: Path) -> int:
    """Give a fresh model the weights of an earlier one whose catalogue was a beginning of this one.

    Args:
        model: as built for the present catalogue; changed in place. Items that are new keep their fresh vectors.
        vocabulary: the present catalogue.
        directory: what `save_model` wrote for the earlier model.

    Returns:
        Number of items that are new.

    Raises:
        DataError: the folder holds no model, or one of another architecture, or its items have other indices.
    """
    earlier, _ = load_model(directory)
    known = load_vocabulary(directory / VOCABULARY_FILE).item_ids
    if not vocabulary.item_ids.slice(0, len(known)).equals(known):
        raise DataError(
            f"{directory}: its items have other indices than here, build the sequences with sequences.keep_indices_of"
        )
    old, new = earlier.state_dict(), model.state_dict()
    if old.keys() != new.keys():
        raise DataError(f"{directory}: another architecture, it has {next(iter(old.keys() ^ new.keys()))} or lacks it")
    for name, weights in new.items():
        known_part = weights[: len(old[name])] if name == "item_embedding.weight" else weights
        if known_part.shape != old[name].shape:
            shapes = f"{name} is {list(old[name].shape)} there, {list(weights.shape)} here"
            raise DataError(f"{directory}: another architecture, {shapes}")
        known_part.copy_(old[name])
    return vocabulary.num_items - len(known)
