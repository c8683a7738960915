"""The registered model as MLflow runs it: the code file of a pyfunc "model from code".

MLflow executes this file when a version is loaded; nothing in the package imports it. Its artifact `model` is the
folder that training wrote (safetensors, JSON, Arrow), so no pickle is involved.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from glintru_model.errors import InputError
from glintru_model.serving.recommender import Recommender

HISTORY_COLUMN = "history"


class RecommenderModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Top-k recommendations for histories of item ids."""

    def load_context(self, context: Any) -> None:
        """Load the weights, settings and vocabulary."""
        self._recommender = Recommender.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer one row per history.

        Args:
            context: MLflow's.
            model_input: one column, `history`: a list of item ids per row, oldest first. The signature that the
                model is saved with makes MLflow refuse anything else.
            params: `k` (10), `filter_seen` (true), `exclude` (no items).

        Returns:
            Columns item_ids, scores, num_unknown_items, ranked_by (`model` or `popularity`).

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE (HTTP 400), with one line on what cannot be used.
        """
        try:
            answers = self._recommender.recommend(model_input[HISTORY_COLUMN].tolist(), **(params or {}))
        except InputError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error
        columns = ["item_ids", "scores", "num_unknown_items", "ranked_by"]
        return pd.DataFrame([vars(answer) for answer in answers], columns=columns)


mlflow.models.set_model(RecommenderModel())
