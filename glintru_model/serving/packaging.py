"""A model's folder packed as an MLflow pyfunc that stands alone: weights, vocabulary, and this package's source."""

import hashlib
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import glintru_model
from glintru_model.layout import VOCABULARY_FILE
from glintru_model.models.files import CONFIG_FILE, WEIGHTS_FILE
from glintru_model.serving.recommender import Recommender

MODEL_FILES = (CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE)
# What a loaded model imports; pandas is how MLflow passes a request on.
_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")


def model_sha256(model_dir: Path) -> str:
    """Hash what makes a model: its weights, its settings and its vocabulary."""
    digest = hashlib.sha256()
    for name in MODEL_FILES:
        with (model_dir / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def save_pyfunc(model_dir: Path, path: Path, mlflow_model: Any = None) -> None:
    """Write the MLflow model to a new folder.

    The package's source travels along (`code_paths`), so a server needs only `pip_requirements`, and a version
    keeps the code that it was registered with.

    Args:
        model_dir: what training wrote.
        path: the folder to write; it must not exist.
        mlflow_model: MLflow's description to fill, with the ids of a logged model.

    Raises:
        DataError: the model cannot be loaded, so it cannot be served either.
    """
    import mlflow

    recommender = Recommender.load(model_dir)
    with tempfile.TemporaryDirectory() as scratch:
        source, weights = Path(scratch) / "glintru_model", Path(scratch) / "model"
        shutil.copytree(Path(glintru_model.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
        weights.mkdir()
        for name in MODEL_FILES:
            shutil.copyfile(model_dir / name, weights / name)
        mlflow.pyfunc.save_model(
            path=str(path),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(weights)},
            code_paths=[str(source)],
            signature=_signature(recommender),
            input_example=_input_example(recommender),
            pip_requirements=[_pinned(name) for name in _REQUIREMENTS],
            mlflow_model=mlflow_model,
        )
    for cache in path.rglob("__pycache__"):
        shutil.rmtree(cache, ignore_errors=True)


def _signature(recommender: Recommender) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    item_id = DataType.long if recommender.integer_ids else DataType.string
    return ModelSignature(
        inputs=Schema([ColSpec(Array(item_id), "history")]),
        outputs=Schema(
            [
                ColSpec(Array(item_id), "item_ids"),
                ColSpec(Array(DataType.double), "scores"),
                ColSpec(DataType.long, "num_unknown_items"),
                ColSpec(DataType.string, "ranked_by"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("k", DataType.long, _default_k(recommender)),
                ParamSpec("filter_seen", DataType.boolean, True),
                ParamSpec("exclude", item_id, [], shape=(-1,)),
            ]
        ),
    )


def _input_example(recommender: Recommender) -> Any:
    import pandas as pd

    first_ids = recommender.vocabulary.item_ids.slice(0, 3).to_pylist()
    return pd.DataFrame({"history": [first_ids]}), {"k": _default_k(recommender), "filter_seen": True}


def _default_k(recommender: Recommender) -> int:
    return min(10, recommender.vocabulary.num_items)


def _pinned(package: str) -> str:
    # a task's image holds mlflow's core alone, which has the version of the whole
    installed = "mlflow-skinny" if package == "mlflow" else package
    return f"{package}=={metadata.version(installed).partition('+')[0]}"  # without a build's suffix, e.g. +cpu
