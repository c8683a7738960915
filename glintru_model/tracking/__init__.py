"""MLflow: one parent run per pipeline run, a child run per step, a null tracker where no MLflow is wanted.

The only package that imports mlflow for tracking; mlflow itself is imported when it is first used.
"""

from glintru_model.tracking.client import connect, mlflow_errors
from glintru_model.tracking.runs import (
    PIPELINE_TAG,
    child_run,
    close_pipeline_run,
    comparison_path,
    find_pipeline_run,
    log_settings,
    open_child,
    open_pipeline_run,
    run_tags,
)
from glintru_model.tracking.tracker import MlflowTracker, NullTracker, RunRef, Tracker

__all__ = [
    "PIPELINE_TAG",
    "MlflowTracker",
    "NullTracker",
    "RunRef",
    "Tracker",
    "child_run",
    "close_pipeline_run",
    "comparison_path",
    "connect",
    "find_pipeline_run",
    "log_settings",
    "mlflow_errors",
    "open_child",
    "open_pipeline_run",
    "run_tags",
]
