"""Submits the compiled pipeline to a Kubeflow Pipelines backend and waits for it, or schedules it."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glintru_model.config import PipelineConfig
from glintru_model.data.catalog import CATALOG, find_entry
from glintru_model.data.source import SYNTHETIC
from glintru_model.errors import GlintruError, InputError, PipelineError
from glintru_model.progress import format_seconds, say
from pipelines.backend import Backend
from pipelines.compile import compile_pipeline, task_titles
from pipelines.git import git_commit
from pipelines.pods import Pods, trouble_of
from pipelines.resources import Profile

POLL_SECONDS = 10.0
FINAL_STATES = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
HOPELESS_SECONDS = 120.0  # a registry or the kubelet may stumble: it tries again after 10, 20, 40 s
_TOLERATED_FAILURES = 12  # polls in a row without an answer


@dataclass(frozen=True)
class Submission:
    """What is submitted and how.

    `image` is the image of every task; empty means the one built from this commit. `mlflow_url` is where people
    reach MLflow's UI. A pod that no node takes for `pending_seconds` ends the wait and the run.
    """

    config: PipelineConfig
    profile: Profile
    package: Path
    image: str = ""
    mlflow_url: str = ""
    pending_seconds: float = 1800


def submit(submission: Submission, backend: Backend, run_name: str) -> None:
    """Compile, submit, and wait for the run to end.

    Raises:
        InputError: the settings cannot be used on a cluster, or the credentials are refused.
        PipelineError: the backend is not reachable, or the run did not succeed.
    """
    config, package = submission.config, submission.package
    refuse_local_paths(config)
    client = backend.connect()
    compile_pipeline(config, submission.profile, package, submission.image)
    try:
        run = client.create_run_from_pipeline_package(
            str(package),
            arguments={"run_name": run_name, "git_commit": git_commit()},
            run_name=run_name,
            experiment_name=config.name,
        )
    except Exception as error:  # kfp passes on whatever its HTTP client raises
        raise backend.explain(error) from error
    say(f"submitted run {run_name!r}: {backend.run_url(run.run_id)}")
    if submission.mlflow_url:
        say(f"MLflow: {submission.mlflow_url.rstrip('/')}/#/experiments (experiment {config.name!r}, run {run_name!r})")
    Watch(client, backend, run.run_id, run_name, task_titles(package), submission.pending_seconds).wait()


def schedule(submission: Submission, backend: Backend, cron: str) -> None:
    """Let the backend start the pipeline by the clock, in place of an earlier schedule of the same name.

    Args:
        submission: what to run; each run takes its own name.
        backend: where.
        cron: five fields (minute to weekday, UTC), or six with seconds first.

    Raises:
        InputError: `cron` or the settings cannot be used, or the credentials are refused.
        PipelineError: the backend is not reachable or refuses.
    """
    config = submission.config
    expression = _cron(cron)
    refuse_local_paths(config)
    client = backend.connect()
    compile_pipeline(config, submission.profile, submission.package, submission.image, recurring=True)
    try:
        experiment_id = client.create_experiment(config.name).experiment_id
        earlier = client.list_recurring_runs(experiment_id=experiment_id, page_size=100).recurring_runs or []
        created = client.create_recurring_run(
            experiment_id,
            config.name,
            cron_expression=expression,
            no_catchup=True,
            params={"run_name": config.name, "git_commit": git_commit()},
            pipeline_package_path=str(submission.package),
        )
        replaced = [job for job in earlier if job.display_name == config.name]
        for job in replaced:
            client.delete_recurring_run(job.recurring_run_id)
    except Exception as error:
        raise backend.explain(error) from error
    url = f"{backend.host.rstrip('/')}/#/recurringrun/details/{created.recurring_run_id}"
    say(f"scheduled {config.name!r} at {expression!r} (UTC), {len(replaced)} earlier schedules replaced: {url}")


class Watch:
    """Follows one run to its end."""

    def __init__(
        self,
        client: Any,
        backend: Backend,
        run_id: str,
        run_name: str,
        titles: Mapping[str, str],
        pending_seconds: float,
    ) -> None:
        self._client, self._backend, self._run_id, self._run_name = client, backend, run_id, run_name
        self._titles, self._pending_seconds = titles, pending_seconds
        self._pods = Pods(backend.pod_namespaces)
        self._start = time.monotonic()
        self._shown: dict[str, str] = {}
        self._pending_since: dict[str, float] = {}
        self._blind = False

    def wait(self) -> None:
        """Show progress until the run ends.

        Raises:
            PipelineError: it did not succeed, or can never start.
        """
        failures = 0
        while True:
            try:
                run = self._client.get_run(self._run_id)
                failures = 0
            except Exception as error:
                failures += 1
                explained = self._backend.explain(error)
                if isinstance(explained, InputError) or failures > _TOLERATED_FAILURES:
                    raise type(explained)(f"{explained} (the run goes on: {self._url})") from error
                time.sleep(POLL_SECONDS)
                continue
            self._show(run)
            if run.state in FINAL_STATES:
                break
            self._look_for_trouble()
            time.sleep(POLL_SECONDS)
        if run.state != "SUCCEEDED":
            raise self._failure(run)

    @property
    def _url(self) -> str:
        return self._backend.run_url(self._run_id)

    def _show(self, run: Any) -> None:
        states = {"": str(run.state).lower(), **self._task_states(run)}
        for task, state in states.items():
            if self._shown.get(task) != state:
                self._shown[task] = state
                what = task or f"run {self._run_name!r}"
                say(f"{what}: {state} after {format_seconds(time.monotonic() - self._start)}")

    def _task_states(self, run: Any) -> dict[str, str]:
        """Map the titles of the tasks that have begun to their states; what kfp adds of its own is left out."""
        details = (run.run_details.task_details or []) if run.run_details else []
        known = [task for task in details if task.display_name in self._titles and task.state]
        return {self._titles[task.display_name]: str(task.state).lower() for task in known}

    def _look_for_trouble(self) -> None:
        pods = self._pods.of_run(self._run_id)
        if self._pods.unreadable and not self._blind:
            self._blind = True
            why = self._pods.unreadable
            say(f"pods cannot be read from here ({why}): why a task waits is seen at {self._url} alone")
        for pod in pods:
            trouble = trouble_of(pod)
            name = pod.metadata.name
            if trouble is None:
                self._pending_since.pop(name, None)
                continue
            if name not in self._pending_since:
                self._pending_since[name] = time.monotonic()
                say(trouble.message)
            waited = time.monotonic() - self._pending_since[name]
            limit = min(HOPELESS_SECONDS, self._pending_seconds) if trouble.hopeless else self._pending_seconds
            if waited > limit:
                self._terminate()
                after = f"waited {format_seconds(waited)}"
                raise PipelineError(f"{trouble.message} ({after}); the run was ended: {self._url}")

    def _terminate(self) -> None:
        try:
            self._client.terminate_run(self._run_id)
        except Exception as error:
            say(f"the run could not be ended: {self._backend.explain(error)}")

    def _failure(self, run: Any) -> GlintruError:
        failed = sorted(task for task, state in self._task_states(run).items() if state == "failed")
        lines = [self._pods.error_line(pod) for pod in self._pods.of_run(self._run_id) if pod.status.phase == "Failed"]
        reason = next((line for line in lines if line), "")
        where = f" in {', '.join(failed)}" if failed else ""
        return PipelineError(
            f"run {self._run_name!r} ended as {str(run.state).lower()}{where}{': ' + reason if reason else ''}; "
            f"see {self._url}"
        )


def refuse_local_paths(config: PipelineConfig) -> None:
    """Refuse what a cluster cannot read: a log, or a folder of an earlier run, of this machine.

    Raises:
        InputError: a setting names one, or neither that nor anything else.
    """
    source = config.ingest.source
    if source not in (SYNTHETIC, *CATALOG) and not source.startswith(("s3://", "https://", "http://")):
        if not Path(source).exists() and "://" not in source:
            find_entry(source)  # offers the nearest name
        raise InputError(f"ingest.source {source!r}: a cluster cannot read it; give s3://... or https://...")
    folders = {
        "ingest.append_to": config.ingest.append_to,
        "sequences.keep_indices_of": config.sequences.keep_indices_of,
        "models.glintru.training.warm_start_from": config.models.glintru.training.warm_start_from,
        "models.sasrec.training.warm_start_from": config.models.sasrec.training.warm_start_from,
    }
    for setting, folder in folders.items():
        if folder:
            raise InputError(f"{setting} {folder!r}: a folder of this machine, which a cluster cannot read")


def _cron(text: str) -> str:
    fields = text.split()
    if len(fields) not in (5, 6) or not all(re.fullmatch(r"[\w*/,?#-]+", part) for part in fields):
        raise InputError(f"CRON {text!r}, allowed: five fields (minute hour day month weekday), or six, seconds first")
    return " ".join(fields if len(fields) == 6 else ["0", *fields])
