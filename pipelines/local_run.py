"""Runs the compiled pipeline on this machine: kfp.local for the tasks, sqlite for MLflow, a journal for Optuna.

Everything that a run leaves behind lies under one folder:

    runs/<run name>/   pipeline.yaml, pipeline.log, study.journal, report.html, summary.json
    runs/tasks/        kfp's task outputs          runs/cache/       which of them can be reused
    runs/downloads/    published logs              runs/mlflow.db    MLflow, with runs/mlartifacts/
"""

import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from kfp import components as kfp_components
from kfp import local
from kfp.dsl import Artifact

from components.run_stage import DEBUG_VARIABLE, ERROR_FILE_VARIABLE, read_error
from glintru_model.config import PipelineConfig
from glintru_model.errors import GlintruError, InputError, PipelineError, StorageError, TrackingError
from glintru_model.files import read_json
from glintru_model.tracking import close_pipeline_run, find_pipeline_run
from pipelines.compile import compile_pipeline, task_titles
from pipelines.console import filtered_stdout, without_colours
from pipelines.git import git_commit
from pipelines.resources import PROFILES


def run_locally(config: PipelineConfig, run_name: str, runs_dir: Path, *, debug: bool) -> dict[str, Any]:
    """Run the whole pipeline here.

    Args:
        config: the run's settings.
        run_name: unique name; also the name of the run's folder.
        runs_dir: the one folder that everything is left under.
        debug: show kfp's whole log and tracebacks.

    Returns:
        The run's summary: metrics, versions and aliases of both models.

    Raises:
        InputError: a stage refused its input.
        PipelineError: a task failed.
    """
    runs_dir = runs_dir.resolve()
    run_dir = runs_dir / run_name
    try:
        run_dir.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{run_dir}: cannot create the run's folder: {error.strerror}") from error
    log_path, error_path = run_dir / "pipeline.log", run_dir / "error.json"
    package = compile_pipeline(config, PROFILES["local"], run_dir / "pipeline.yaml")
    titles = task_titles(package)
    with _local_runner(runs_dir, run_dir, error_path, debug=debug), filtered_stdout(log_path, titles, show_all=debug):
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, force=True)
        try:
            outputs = _execute(package, _arguments(config, run_name, runs_dir, run_dir))
        except RuntimeError as failure:  # all that kfp.local raises for a failed task
            _close(runs_dir, run_name, "FAILED")
            raise _as_typed(failure, error_path, log_path) from failure
        except KeyboardInterrupt:
            _close(runs_dir, run_name, "KILLED")
            raise
    shutil.copyfile(outputs["report"].path, run_dir / "report.html")
    shutil.copyfile(outputs["summary"].path, run_dir / "summary.json")
    return dict(read_json(run_dir / "summary.json"))


def _close(runs_dir: Path, run_name: str, status: str) -> None:
    """End the run in MLflow, if it was begun: a run that ended otherwise than well does not stay open for ever."""
    with suppress(TrackingError):  # the run's own failure matters more
        if run := find_pipeline_run(tracking_uri(runs_dir), run_name):
            close_pipeline_run(run, status)


def _arguments(config: PipelineConfig, run_name: str, runs_dir: Path, run_dir: Path) -> dict[str, str]:
    uri = tracking_uri(runs_dir)
    # A server of her own decides where it keeps artifacts; a folder of this machine would mean nothing to it.
    artifacts = (runs_dir / "mlartifacts" / config.name).as_uri() if uri.startswith("sqlite:") else ""
    return {
        "run_name": run_name,
        "tracking_uri": uri,
        "artifact_location": artifacts,
        "study_storage": f"journal:{run_dir / 'study.journal'}",
        "downloads_dir": str(runs_dir / "downloads"),
        "git_commit": git_commit(),
    }


def tracking_uri(runs_dir: Path) -> str:
    """Return the address of the local MLflow database, or of the server that the environment names."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_dir.resolve() / 'mlflow.db'}"


def _execute(package: Path, arguments: dict[str, str]) -> dict[str, Artifact]:
    pipeline = kfp_components.load_component_from_file(str(package))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
        return dict(pipeline(**arguments).outputs)


@contextmanager
def _local_runner(runs_dir: Path, run_dir: Path, error_path: Path, *, debug: bool) -> Iterator[None]:
    """Set kfp.local up, and the environment that its task processes inherit; restore the environment after."""
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(runs_dir / "tasks"),
        workspace_root=str(run_dir / "workspace"),
        enable_caching=True,
        cache_root=str(runs_dir / "cache"),
    )
    changes = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        # Waiting threads sleep: on a machine that other work shares, spinning ones made training 7 times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
        ERROR_FILE_VARIABLE: str(error_path),
        **({DEBUG_VARIABLE: "1"} if debug else {}),
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    polite_end = signal.signal(signal.SIGTERM, _end_with_tasks)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, polite_end)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _end_with_tasks(_signal: int, _frame: FrameType | None) -> None:
    """End the tasks too: unlike Ctrl-C, which reaches them all, SIGTERM reaches this process alone."""
    import psutil

    for task in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            task.terminate()
    raise KeyboardInterrupt


def _as_typed(failure: RuntimeError, error_path: Path, log_path: Path) -> GlintruError:
    left = read_error(error_path)
    if left is None:
        return PipelineError(f"{without_colours(str(failure))}; the full log is {log_path}")
    message, exit_code = left
    return InputError(message) if exit_code == InputError.exit_code else PipelineError(f"{message} (log: {log_path})")
