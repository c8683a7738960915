"""What a run's settings take from earlier outputs: found before anything runs, and a part of every cache key."""

from pathlib import Path

from glintru_model.config import GlintruRecommender, SasrecRecommender, SequencesConfig
from glintru_model.data.hashing import hash_file
from glintru_model.errors import DataError
from glintru_model.fingerprint import combine
from glintru_model.layout import VOCABULARY_FILE


def fingerprint_earlier(sequences: SequencesConfig, *recommenders: GlintruRecommender | SasrecRecommender) -> str:
    """Hash the vocabulary that `keep_indices_of` names and the models that `warm_start_from` names.

    Returns:
        What changes whenever one of them does, though it lies at the same place; "" where the settings name none.

    Raises:
        DataError: a folder holds no such thing; it names the setting.
    """
    parts = []
    if sequences.keep_indices_of:
        folder = _folder(sequences.keep_indices_of, "sequences.keep_indices_of", "build-sequences")
        parts.append(_hash(folder / VOCABULARY_FILE))
    for recommender in recommenders:
        if recommender.training.warm_start_from:
            setting = f"models.{recommender.name}.training.warm_start_from"
            folder = _folder(recommender.training.warm_start_from, setting, "train")
            files = sorted(path for path in folder.iterdir() if path.is_file())
            parts.append(combine(recommender.name, *(part for path in files for part in (path.name, _hash(path)))))
    return combine(*parts) if parts else ""


def _folder(place: str, setting: str, made_by: str) -> Path:
    folder = Path(place)
    if not (folder / VOCABULARY_FILE).is_file():
        raise DataError(f"{setting} {place!r}: no {VOCABULARY_FILE} there, expected the output of {made_by}")
    return folder


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error
