"""The MLflow Model Registry: one registered model per architecture, aliases `champion` and `challenger`."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glintru_model.errors import InputError
from glintru_model.serving.alias_rule import MAIN_METRIC, Decision, Standing, decide
from glintru_model.serving.packaging import model_sha256, save_pyfunc
from glintru_model.tracking import RunRef, connect, mlflow_errors

CHAMPION, CHALLENGER = "champion", "challenger"
_VALIDATION_TAG = f"validation_{MAIN_METRIC}"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version and where it stands; an untracked run has no version (empty text)."""

    name: str
    version: str
    alias: str
    reason: str


def register(
    model_dir: Path,
    *,
    tracking: RunRef,
    model_name: str,
    pipeline_run: str,
    dataset_hash: str,
    validation_metrics: Mapping[str, float],
    test_metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> RegisteredVersion:
    """Log a trained model to a run and make it a version with an alias; a second call finds that version.

    The alias follows validation alone (`alias_rule.decide`); test figures are only written down.

    Args:
        model_dir: what training wrote.
        tracking: the run that the model came from; the null run registers nothing.
        model_name: the registered model.
        pipeline_run: with the model's content it is the version's identity.
        dataset_hash: the sequences that it was trained and validated on.
        validation_metrics: e.g. `{"ndcg_at_10": 0.1}`.
        test_metrics: likewise.
        tags: further tags, e.g. `git_commit`.

    Raises:
        DataError: the model's folder cannot be loaded.
        TrackingError: MLflow refuses or is not reachable; nothing half-registered gets an alias.
    """
    if not tracking:
        return RegisteredVersion(model_name, "", "", "the run is not tracked: nothing was registered")
    identity = {"pipeline_run": pipeline_run, "model_sha256": model_sha256(model_dir)}
    client = connect(tracking.tracking_uri)
    with mlflow_errors(tracking.tracking_uri):
        found = _find_version(client, model_name, identity)
        if found is not None and "decision" in found.tags:
            return RegisteredVersion(
                model_name, str(found.version), found.tags["decision"], found.tags["decision_reason"]
            )
        if found is None:
            figures = {
                **{f"validation_{name}": repr(float(value)) for name, value in validation_metrics.items()},
                **{f"test_{name}": repr(float(value)) for name, value in test_metrics.items()},
            }
            all_tags = {**tags, **identity, "dataset_hash": dataset_hash, **figures}
            model_id = _log_model(client, tracking, model_name, model_dir, identity)
            _link_metrics(client, tracking, model_id, validation_metrics, test_metrics)
            found = _create_version(client, tracking, model_name, model_id, all_tags)
        decision = _give_alias(client, found)
        return RegisteredVersion(model_name, str(found.version), decision.alias, decision.reason)


def list_champions(tracking_uri: str, names: Sequence[str]) -> dict[str, RegisteredVersion | None]:
    """Look up each registered model's champion; None where there is none.

    Raises:
        TrackingError: MLflow is not reachable.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        champions = {name: _by_alias(client, name, CHAMPION) for name in names}
    return {
        name: found and RegisteredVersion(name, str(found.version), CHAMPION, _reason(found))
        for name, found in champions.items()
    }


def promote(tracking_uri: str, name: str, version: str) -> RegisteredVersion:
    """Make a version the champion by hand; the version's tags say when and what it replaced.

    Raises:
        InputError: there is no such version.
        TrackingError: MLflow is not reachable.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        found = _require_version(client, name, version)
        reason = "promoted by hand"
        _crown(client, found, reason)
        client.set_model_version_tag(name, found.version, "promoted_at", _now())
    return RegisteredVersion(name, str(found.version), CHAMPION, reason)


def rollback(tracking_uri: str, name: str) -> RegisteredVersion:
    """Give the alias back to the champion before the present one; the version that loses it is tagged with it.

    Raises:
        InputError: there is no champion, or none before it that still exists.
        TrackingError: MLflow is not reachable.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        champion = _by_alias(client, name, CHAMPION)
        if champion is None:
            raise InputError(f"registered model {name!r} has no champion to roll back from")
        before = champion.tags.get("replaced_version", "")
        if not before:
            raise InputError(f"{name} version {champion.version} is the first champion: nothing to roll back to")
        _require_version(client, name, before)
        client.set_registered_model_alias(name, CHAMPION, before)
        trace = {"rolled_back_at": _now(), "rolled_back_to": before}
        for key, value in trace.items():
            client.set_model_version_tag(name, champion.version, key, value)
    return RegisteredVersion(name, before, CHAMPION, f"rolled back from version {champion.version}")


def _log_model(client: Any, tracking: RunRef, name: str, model_dir: Path, identity: Mapping[str, str]) -> str:
    """Store the packed model as an output of the run; a whole one that an earlier attempt left is taken again."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    clause = " AND ".join(f"tags.{key} = '{value}'" for key, value in identity.items())
    for earlier in client.search_logged_models([tracking.experiment_id], f"{clause} AND name = '{name}'"):
        if earlier.status == "READY":
            return str(earlier.model_id)
    logged = client.create_logged_model(
        tracking.experiment_id, name=name, source_run_id=tracking.run_id, tags=dict(identity)
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / "model"
            description = Model(
                artifact_path=logged.artifact_location, run_id=tracking.run_id, model_id=logged.model_id
            )
            save_pyfunc(model_dir, local, description)
            client.log_model_artifacts(logged.model_id, str(local))
    except BaseException:
        with suppress(Exception):  # the reason for the failure matters more
            client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(tracking.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _link_metrics(
    client: Any, tracking: RunRef, model_id: str, validation: Mapping[str, float], test: Mapping[str, float]
) -> None:
    """Show the figures on the logged model's own page, under the names that the runs use."""
    from mlflow.entities import Metric

    named = {f"val/{name}": value for name, value in validation.items()}
    named |= {f"test/{name}": value for name, value in test.items()}
    now = int(datetime.now(UTC).timestamp() * 1000)
    metrics = [
        Metric(name, float(value), now, 0, model_id=model_id, run_id=tracking.run_id) for name, value in named.items()
    ]
    client.log_batch(tracking.run_id, metrics=metrics)


def _create_version(client: Any, tracking: RunRef, name: str, model_id: str, tags: Mapping[str, str]) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=f"Sequential recommender {name}: top-k for item histories.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # not `models:/<id>`: on a database MLflow would look that up at its global address instead of the client's
    source = client.get_logged_model(model_id).artifact_location
    version = client.create_model_version(
        name, source=source, run_id=tracking.run_id, tags={**tags, "model_id": model_id}, model_id=model_id
    )
    listed = [{"name": name, "version": int(version.version)}]  # how MLflow's UI leads from the model to the version
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(listed)})
    return version


def _give_alias(client: Any, version: Any) -> Decision:
    champion = _by_alias(client, version.name, CHAMPION)
    decision = decide(_standing(version), _standing(champion) if champion else None)
    if decision.alias == CHAMPION:
        _crown(client, version, decision.reason)
    else:
        client.set_registered_model_alias(version.name, CHALLENGER, version.version)
    test = version.tags.get(f"test_{MAIN_METRIC}")
    description = f"{decision.alias.capitalize()}: {decision.reason}. Pipeline run {version.tags['pipeline_run']}."
    if test:
        description += f" Test {MAIN_METRIC} {float(test):.4f}."
    client.update_model_version(version.name, version.version, description)
    # last: a version without a decision is decided again by a retry
    client.set_model_version_tag(version.name, version.version, "decision_reason", decision.reason)
    client.set_model_version_tag(version.name, version.version, "decision", decision.alias)
    return decision


def _crown(client: Any, version: Any, reason: str) -> None:
    """Move the alias `champion`, and note on the version what it replaced, for a rollback."""
    champion = _by_alias(client, version.name, CHAMPION)
    if champion is not None and champion.version == version.version:
        return
    replaced = "" if champion is None else str(champion.version)
    for key, value in {"champion_since": _now(), "champion_reason": reason, "replaced_version": replaced}.items():
        client.set_model_version_tag(version.name, version.version, key, value)
    client.set_registered_model_alias(version.name, CHAMPION, version.version)
    challenger = _by_alias(client, version.name, CHALLENGER)
    if challenger is not None and challenger.version == version.version:
        client.delete_registered_model_alias(version.name, CHALLENGER)


def _find_version(client: Any, name: str, tags: Mapping[str, str]) -> Any:
    for version in client.search_model_versions(f"name = '{name}' and tags.model_sha256 = '{tags['model_sha256']}'"):
        if all(version.tags.get(key) == value for key, value in tags.items()):
            return version
    return None


def _require_version(client: Any, name: str, version: str) -> Any:
    versions = {str(found.version): found for found in client.search_model_versions(f"name = '{name}'")}
    if version not in versions:
        numbers = ", ".join(sorted(versions, key=int)) or "none"
        raise InputError(f"registered model {name!r} has no version {version!r}, there are: {numbers}")
    return versions[version]


def _by_alias(client: Any, name: str, alias: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model, or alias
            return None
        raise


def _standing(version: Any) -> Standing:
    figure = version.tags.get(_VALIDATION_TAG)
    return Standing(
        version=str(version.version),
        dataset_hash=version.tags.get("dataset_hash", ""),
        validation=None if figure is None else float(figure),
    )


def _reason(version: Any) -> str:
    return str(version.tags.get("champion_reason", ""))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
