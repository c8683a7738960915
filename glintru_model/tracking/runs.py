"""MLflow runs of a pipeline: one parent run, a child run per step, a null tracker where no MLflow is wanted.

Everything goes through an `MlflowClient` with an explicit run, so a run id that a KFP backend leaves in the
environment is never attached to by surprise, and nothing depends on the working directory.
"""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import Any
from urllib.parse import quote

from glintru_model.errors import TrackingError
from glintru_model.tracking.client import artifact_uri, connect, mlflow_errors, refuse_credentials, without_secrets
from glintru_model.tracking.tracker import MlflowTracker, NullTracker, RunRef, Tracker

PIPELINE_TAG = "pipeline_run"
PARENT_TAG = "mlflow.parentRunId"
_COMMIT_TAG = "mlflow.source.git.commit"  # MLflow's UI shows it as the version
_PACKAGES = ("glintru-pipeline", "torch", "numpy", "pyarrow", "mlflow", "optuna", "kfp")
_SAMPLING_SECONDS = 5
_STATUSES = ("FINISHED", "FAILED", "KILLED")


def open_pipeline_run(
    tracking_uri: str,
    experiment: str,
    artifact_location: str,
    run_name: str,
    tags: Mapping[str, Any],
    params: Mapping[str, Any],
) -> RunRef:
    """Open the parent run of a pipeline run, or find the one that an earlier attempt opened.

    It is the first contact with MLflow: a sqlite database is created here, before parallel steps need it.

    Args:
        tracking_uri: `sqlite:///path`, `http(s)://...`, or "" for a run that is not tracked.
        experiment: the experiment's name; it is created if need be.
        artifact_location: folder or URI for a new experiment's artifacts; "" means a folder `artifacts` beside a
            sqlite database, or a server's own choice.
        run_name: the pipeline run's unique name; it makes this call idempotent.
        tags: tags beside the package versions; `git_commit` also becomes the version that MLflow's UI shows.
        params: settings, nested or flat.

    Raises:
        ConfigError: an address holds credentials.
        TrackingError: MLflow refuses or is not reachable.
    """
    if not tracking_uri:
        return RunRef()
    refuse_credentials(artifact_location, "artifact location")
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        experiment_id = _experiment(client, experiment, artifact_uri(tracking_uri, artifact_location))
        clause = f"tags.{PIPELINE_TAG} = {_quoted(run_name)} and tags.kind = 'pipeline'"
        run_id = _find_run(client, experiment_id, clause)
        if run_id is None:
            all_tags = {**environment_tags(), **tags, PIPELINE_TAG: run_name, "kind": "pipeline"}
            if commit := str(tags.get("git_commit", "")):
                all_tags[_COMMIT_TAG] = commit.removesuffix("-dirty")
            run_id = _create_run(client, experiment_id, run_name, all_tags)
        else:
            client.update_run(run_id, status="RUNNING")
    ref = RunRef(tracking_uri, experiment_id, run_id)
    if params:
        MlflowTracker(ref).log_params(params)
    return ref


def comparison_path(tracking_uri: str) -> str:
    """Return where MLflow's UI shows the newest pipeline run's models side by side; empty where no run has two.

    Raises:
        TrackingError: MLflow refuses or is not reachable.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        newest = ["attributes.start_time DESC"]
        models = client.search_runs(experiments, "tags.kind = 'model'", max_results=50, order_by=newest)
    by_parent: dict[str, list[Any]] = {}
    for run in models:
        by_parent.setdefault(run.data.tags[PARENT_TAG], []).append(run.info)
    found = next((infos for infos in by_parent.values() if len(infos) > 1), [])
    siblings = sorted(found, key=lambda info: str(info.run_name))
    if not siblings:
        return ""
    ids, of_experiment = json.dumps([info.run_id for info in siblings]), json.dumps([siblings[0].experiment_id])
    return f"#/compare-runs?runs={quote(ids)}&experiments={quote(of_experiment)}"


def run_tags(ref: RunRef) -> dict[str, str]:
    """Return a run's tags; the null run has none.

    Raises:
        TrackingError: MLflow refuses or is not reachable.
    """
    if not ref:
        return {}
    client = connect(ref.tracking_uri)
    with mlflow_errors(ref.tracking_uri):
        return dict(client.get_run(ref.run_id).data.tags)


def find_pipeline_run(tracking_uri: str, run_name: str) -> RunRef:
    """Return the newest pipeline run of that name; the null run if there is none.

    Raises:
        TrackingError: MLflow refuses or is not reachable.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        clause = f"tags.{PIPELINE_TAG} = {_quoted(run_name)} and tags.kind = 'pipeline'"
        found = client.search_runs(experiments, clause, max_results=1) if experiments else []
    return RunRef(tracking_uri, found[0].info.experiment_id, found[0].info.run_id) if found else RunRef()


def log_settings(ref: RunRef, settings: str) -> None:
    """Keep a run's whole configuration: as params that can be searched, and as the artifact `settings.json`.

    Args:
        ref: the pipeline run.
        settings: the configuration as JSON text; queries and credentials in addresses are not kept.

    Raises:
        TrackingError: MLflow refuses or is not reachable.
    """
    if not ref:
        return
    values = json.loads(without_secrets(settings))
    tracker = MlflowTracker(ref)
    tracker.log_params(values)
    tracker.log_dict(values, "settings.json")


def close_pipeline_run(ref: RunRef, status: str) -> None:
    """End a run (`FINISHED`, `FAILED` or `KILLED`); runs below it that are still open were left behind: KILLED.

    Raises:
        TrackingError: MLflow refuses or is not reachable.
    """
    if status not in _STATUSES:
        raise ValueError(f"status {status!r}, allowed: {', '.join(_STATUSES)}")
    if not ref:
        return
    client = connect(ref.tracking_uri)
    with mlflow_errors(ref.tracking_uri):
        abandoned = [ref.run_id]
        while abandoned:
            clause = f"tags.`{PARENT_TAG}` = '{abandoned.pop()}' and attributes.status = 'RUNNING'"
            for run in client.search_runs([ref.experiment_id], clause):
                abandoned.append(run.info.run_id)
                client.set_terminated(run.info.run_id, "KILLED")
        client.set_terminated(ref.run_id, status)


def open_child(parent: RunRef, name: str, tags: Mapping[str, Any] | None = None) -> RunRef:
    """Open the child run `name` and leave it open, e.g. for parallel workers that write below it.

    MLflow knows no unique names: one process opens a run first, only then may others do so together.

    A retried step finds its own run again, by the parent and the name, and continues it.

    Args:
        parent: the run above; the null run has null children.
        name: unique below its parent.
        tags: its tags when it is first opened.

    Raises:
        TrackingError: MLflow refuses or is not reachable.
    """
    if not parent:
        return RunRef()
    client = connect(parent.tracking_uri)
    with mlflow_errors(parent.tracking_uri):
        clause = f"tags.`{PARENT_TAG}` = '{parent.run_id}' and attributes.run_name = {_quoted(name)}"
        run_id = _find_run(client, parent.experiment_id, clause)
        if run_id is None:
            run_id = _create_run(client, parent.experiment_id, name, {**(tags or {}), PARENT_TAG: parent.run_id})
        else:
            client.update_run(run_id, status="RUNNING")
    return RunRef(parent.tracking_uri, parent.experiment_id, run_id)


@contextmanager
def child_run(
    parent: RunRef,
    name: str,
    tags: Mapping[str, Any] | None = None,
    *,
    system_metrics: bool = False,
    killed_by: tuple[type[BaseException], ...] = (),
) -> Iterator[Tracker]:
    """Run a step inside the child run `name`: FINISHED at the end, FAILED (with the tag `error`) when it raises.

    Args:
        parent: the run above; the null run gives a NullTracker.
        name: the step's name, unique below its parent.
        tags: the child's tags when it is first opened.
        system_metrics: sample CPU, memory, disk, network and GPU every 5 seconds.
        killed_by: exceptions that mean "stopped on purpose" (a pruned trial): KILLED, as an interrupt is.

    Raises:
        TrackingError: MLflow refuses or is not reachable.
    """
    if not parent:
        yield NullTracker()
        return
    ref = open_child(parent, name, tags)
    tracker = MlflowTracker(ref)
    try:
        with _system_metrics(ref, wanted=system_metrics):
            yield tracker
    except BaseException as error:
        killed = isinstance(error, (*killed_by, KeyboardInterrupt, SystemExit, GeneratorExit))
        with suppress(TrackingError):  # the step's own error matters more
            if not killed:
                first_line = next(iter(str(error).splitlines()), "")
                tracker.set_tags({"error": without_secrets(f"{type(error).__name__}: {first_line}")})
            close_pipeline_run(ref, "KILLED" if killed else "FAILED")
        raise
    close_pipeline_run(ref, "FINISHED")


def environment_tags() -> dict[str, str]:
    """Name the versions that decide about results."""
    versions = {"version.python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[f"version.{package}"] = metadata.version(package)
    return versions


@contextmanager
def _system_metrics(ref: RunRef, *, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(
        ref.run_id, sampling_interval=_SAMPLING_SECONDS, resume_logging=True, tracking_uri=ref.tracking_uri
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def _experiment(client: Any, name: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another pipeline run may have been faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(f"experiment {name!r} is deleted: restore it or choose another name")
    return str(found.experiment_id)


def _find_run(client: Any, experiment_id: str, clause: str) -> str | None:
    runs = client.search_runs([experiment_id], clause, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0].info.run_id if runs else None


def _create_run(client: Any, experiment_id: str, name: str, tags: Mapping[str, Any]) -> str:
    run = client.create_run(experiment_id, run_name=name, tags={key: str(value) for key, value in tags.items()})
    return str(run.info.run_id)


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"
