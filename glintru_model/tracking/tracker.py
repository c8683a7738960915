"""What a step records: a run of MLflow, or nothing."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from glintru_model.errors import DataError, TrackingError
from glintru_model.files import read_json, write_json
from glintru_model.tracking.client import connect, mlflow_errors, without_secrets


@dataclass(frozen=True)
class RunRef:
    """Where a run lives, small enough to pass from step to step; the null run has empty ids."""

    tracking_uri: str = ""
    experiment_id: str = ""
    run_id: str = ""

    def __bool__(self) -> bool:
        return bool(self.run_id)

    def write(self, path: Path) -> None:
        """Write the reference as JSON, whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "RunRef":
        """Read what `write` wrote.

        Raises:
            TrackingError: the file is missing or is no run reference.
        """
        try:
            return cls(**read_json(path))
        except (DataError, TypeError) as error:
            raise TrackingError(f"{path}: not a reference to an MLflow run: {error}") from error


class Tracker(Protocol):
    """What a step may record about itself."""

    @property
    def ref(self) -> RunRef:
        """The run written to, e.g. as the parent of further runs."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; nested mappings become dotted names."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record figures, in one call; `step` is e.g. the epoch."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Store a file, or a directory's content, under `folder` of the run."""

    def log_text_file(self, path: Path, name: str) -> None:
        """Store a text file (a report, say) under the path `name` of the run."""

    def log_dict(self, values: Mapping[str, Any], name: str) -> None:
        """Store a mapping as the JSON or YAML file `name`."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, overwriting those of the same name."""

    def log_dataset(self, manifest: Mapping[str, Any], context: str = "training") -> None:
        """Record the sequences that the step reads, by their manifest, as the run's dataset input."""


class NullTracker:
    """Records nothing: stands in where a run is not tracked."""

    ref = RunRef()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Do nothing."""

    def log_text_file(self, path: Path, name: str) -> None:
        """Do nothing."""

    def log_dict(self, values: Mapping[str, Any], name: str) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_dataset(self, manifest: Mapping[str, Any], context: str = "training") -> None:
        """Do nothing."""


class MlflowTracker:
    """Writes to one MLflow run.

    Every method raises TrackingError when MLflow refuses or is not reachable.
    """

    def __init__(self, ref: RunRef) -> None:
        self._ref = ref
        self._client = connect(ref.tracking_uri)

    @property
    def ref(self) -> RunRef:
        """The run written to."""
        return self._ref

    def log_params(self, params: Mapping[str, Any]) -> None:
        """See Tracker."""
        from mlflow.entities import Param

        entries = [Param(name, without_secrets(str(value))) for name, value in _flatten(params).items()]
        for start in range(0, len(entries), 100):  # MLflow takes 100 params a call
            self._log_batch(params=entries[start : start + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """See Tracker."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(name, float(value), now, step or 0) for name, value in metrics.items()]
        for start in range(0, len(entries), 1000):
            self._log_batch(metrics=entries[start : start + 1000])

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """See Tracker."""
        with mlflow_errors(self._ref.tracking_uri):
            log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            log(self._ref.run_id, str(path), folder or None)

    def log_text_file(self, path: Path, name: str) -> None:
        """See Tracker."""
        with mlflow_errors(self._ref.tracking_uri):
            self._client.log_text(self._ref.run_id, path.read_text(encoding="utf-8"), name)

    def log_dict(self, values: Mapping[str, Any], name: str) -> None:
        """See Tracker."""
        with mlflow_errors(self._ref.tracking_uri):
            self._client.log_dict(self._ref.run_id, dict(values), name)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """See Tracker."""
        from mlflow.entities import RunTag

        self._log_batch(tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def log_dataset(self, manifest: Mapping[str, Any], context: str = "training") -> None:
        """See Tracker."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = without_secrets(str(manifest.get("source", "")))
        kind, key = {"http": ("http", "url"), "https": ("http", "url"), "s3": ("s3", "uri")}.get(
            source.partition("://")[0], ("local", "uri")
        )
        dataset = Dataset(
            name=Path(source).name or "sequences",
            digest=str(manifest["dataset_hash"]).removeprefix("sha256:")[:36],  # MLflow's longest digest
            source_type=kind,
            source=json.dumps({key: source}),
            profile=json.dumps({name: value for name, value in manifest.items() if name.startswith("num_")}),
        )
        with mlflow_errors(self._ref.tracking_uri):
            self._client.log_inputs(
                self._ref.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
            )

    def _log_batch(self, **entries: Any) -> None:
        with mlflow_errors(self._ref.tracking_uri):
            self._client.log_batch(self._ref.run_id, **entries)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
