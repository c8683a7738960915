"""A trained model as a folder: weights, settings and the vocabulary that gives its items their names."""

import json
import shutil
from pathlib import Path

import torch

from glintru_model.config import GlintruRecommender, SasrecRecommender
from glintru_model.config_io import parse_recommender
from glintru_model.errors import ConfigError, DataError, StorageError
from glintru_model.files import atomic_directory, read_json, write_json
from glintru_model.layout import VOCABULARY_FILE
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.registry import build_model

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def save_model(
    model: SequentialRecommender,
    config: GlintruRecommender | SasrecRecommender,
    vocabulary_path: Path,
    directory: Path,
) -> None:
    """Write a model's folder, whole or not at all; a folder of that name is replaced.

    Args:
        model: the trained model.
        config: what it was built from.
        vocabulary_path: the `vocabulary.arrow` of the sequences that it was trained on.
        directory: the folder to write.

    Raises:
        DataError: there is no vocabulary.
        StorageError: the disk refused.
    """
    # here and in `load_model`, because a training that begins with fresh weights does without it
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not vocabulary_path.is_file():
        raise DataError(f"{vocabulary_path}: no such file, expected the vocabulary of the training sequences")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_directory(directory, CONFIG_FILE) as temporary:
        try:
            save_file(weights, temporary / WEIGHTS_FILE)
        except SafetensorError as error:  # its writer does not raise OSError
            raise StorageError(f"{directory / WEIGHTS_FILE}: cannot write: {error}") from error
        write_json(temporary / CONFIG_FILE, {"num_items": model.num_items, "recommender": config.model_dump()})
        shutil.copyfile(vocabulary_path, temporary / VOCABULARY_FILE)


def load_model(
    directory: Path, device: torch.device | str = "cpu"
) -> tuple[SequentialRecommender, GlintruRecommender | SasrecRecommender]:
    """Read what `save_model` wrote.

    Returns:
        The model, in evaluation mode on the device, and its settings.

    Raises:
        DataError: a file is missing, is not what its name says, or does not fit the others.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config_path, weights_path = directory / CONFIG_FILE, directory / WEIGHTS_FILE
    stored = read_json(config_path)
    if not isinstance(stored, dict) or not isinstance(stored.get("num_items"), int):
        raise DataError(f"{config_path}: expected the keys num_items and recommender")
    try:
        config = parse_recommender(json.dumps(stored.get("recommender")), str(config_path))
    except ConfigError as error:
        raise DataError(str(error)) from error
    if not (directory / VOCABULARY_FILE).is_file():
        raise DataError(f"{directory / VOCABULARY_FILE}: no such file")
    model = build_model(config, stored["num_items"])
    try:
        model.load_state_dict(load_file(weights_path))
    except OSError as error:
        raise DataError(f"{weights_path}: cannot read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise DataError(f"{weights_path}: not a safetensors file: {error}") from error
    except RuntimeError as error:  # torch lists every name and shape that does not fit; the first says enough
        problem = str(error).splitlines()[-1].strip()
        raise DataError(f"{weights_path}: does not fit {CONFIG_FILE}: {problem}") from error
    damaged = [name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if damaged:
        raise DataError(f"{weights_path}: {damaged[0]} holds numbers that are not finite")
    return model.to(device).eval(), config
