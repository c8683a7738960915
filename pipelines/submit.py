"""Submits the compiled pipeline to a Kubeflow Pipelines backend and waits for it."""

import os
import time
from pathlib import Path
from typing import Any

from glintru_model.config import PipelineConfig
from glintru_model.errors import InputError, PipelineError
from glintru_model.progress import format_seconds, say
from pipelines.compile import compile_pipeline
from pipelines.git import git_commit
from pipelines.resources import Profile

POLL_SECONDS = 10
FINAL_STATES = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


def submit(config: PipelineConfig, run_name: str, host: str, profile: Profile, package: Path, image: str) -> None:
    """Compile, submit, and wait for the run to end.

    Args:
        config: the run's settings.
        run_name: unique name of the run.
        host: the KFP API's address.
        profile: the tasks' resources.
        package: where the compiled pipeline is written.
        image: the image of every task; empty means this version's own tag.

    Raises:
        InputError: the settings name a file of this machine, which a cluster cannot read.
        PipelineError: the backend is not reachable, or the run did not succeed.
    """
    _require_remote_source(config.ingest.source)
    compile_pipeline(config, profile, package, image)
    client = _client(host)
    try:
        run = client.create_run_from_pipeline_package(
            str(package),
            arguments={"run_name": run_name, "git_commit": git_commit()},
            run_name=run_name,
            experiment_name=config.name,
        )
    except Exception as error:  # kfp passes on whatever its HTTP client raises
        raise PipelineError(f"{host}: the run was not accepted: {_one_line(error)}") from error
    say(f"submitted run {run_name!r}: {host.rstrip('/')}/#/runs/details/{run.run_id}")
    _wait(client, run.run_id, run_name)


def _client(host: str) -> Any:
    from kfp import Client

    try:
        return Client(
            host=host, existing_token=os.environ.get("KFP_TOKEN"), namespace=os.environ.get("KFP_NAMESPACE", "kubeflow")
        )
    except Exception as error:
        raise PipelineError(f"{host}: Kubeflow Pipelines is not reachable: {_one_line(error)}") from error


def _wait(client: Any, run_id: str, run_name: str) -> None:
    start, last = time.monotonic(), ""
    while True:
        state = str(client.get_run(run_id).state)
        if state != last:
            say(f"run {run_name!r}: {state.lower()} after {format_seconds(time.monotonic() - start)}")
            last = state
        if state in FINAL_STATES:
            break
        time.sleep(POLL_SECONDS)
    if state != "SUCCEEDED":
        raise PipelineError(f"run {run_name!r} ended as {state.lower()}")


def _require_remote_source(source: str) -> None:
    if Path(source).exists() and source != "synthetic":
        raise InputError(f"{source}: a path of this machine, which a cluster cannot read; give s3://... or https://...")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
