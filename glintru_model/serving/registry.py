"""The MLflow Model Registry: one registered model per architecture, aliases `champion` and `challenger`."""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glintru_model.config import RegistryConfig
from glintru_model.errors import DataError
from glintru_model.serving.alias_rule import Contest, Decision, Refusal, decide
from glintru_model.serving.aliases import CHALLENGER, CHAMPION, RegisteredVersion, by_alias, crown, why_champion
from glintru_model.serving.fetching import fetch_model, fetch_trained_events
from glintru_model.serving.packaging import model_sha256, save_pyfunc
from glintru_model.tracking import RunRef, connect, mlflow_errors


@dataclass(frozen=True)
class Champion:
    """The present champion with what a comparison needs of it.

    Attributes:
        version: its number.
        dataset_hash: the sequences that it was trained and validated on.
        model_dir: its weights, settings and vocabulary, in a folder that is gone after the comparison.
        trained_events: the record of what it was trained on; None where none was kept.
    """

    version: str
    dataset_hash: str
    model_dir: Path
    trained_events: Path | None


Judge = Callable[[Champion], Contest | Refusal]


def register(
    model_dir: Path,
    *,
    judge: Judge,
    config: RegistryConfig,
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
        judge: compares this model with the present champion; called only where there is another one.
        config: rule and margin.
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
        decision = _give_alias(client, found, judge, config)
        return RegisteredVersion(model_name, str(found.version), decision.alias, decision.reason)


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


def _give_alias(client: Any, version: Any, judge: Judge, config: RegistryConfig) -> Decision:
    champion, outcome, decision = _decided(client, version, judge, config)
    if decision.alias == CHAMPION:
        crown(client, version, decision.reason)
    else:
        client.set_registered_model_alias(version.name, CHALLENGER, version.version)
    client.update_model_version(version.name, version.version, _description(version, decision))
    tags = {"decision_rule": f"{config.rule} on {config.metric}, margin {config.margin:g}"}
    if isinstance(outcome, Contest):
        tags |= {"compared_with": str(champion.version), "compared_users": str(outcome.num_users)}
        tags |= {f"validation_{key}": repr(getattr(outcome, key)) for key in ("difference", "low", "high", "p_value")}
    # last: a version without a decision is decided again by a retry
    for key, value in {**tags, "decision_reason": decision.reason, "decision": decision.alias}.items():
        client.set_model_version_tag(version.name, version.version, key, value)
    return decision


def _decided(
    client: Any, version: Any, judge: Judge, config: RegistryConfig
) -> tuple[Any, Contest | Refusal | None, Decision]:
    """Compare with the champion that is there once the comparison is done: another run may end meanwhile."""
    while True:
        champion = by_alias(client, version.name, CHAMPION)
        if champion is None:
            return None, None, decide(None, None, config)
        if champion.version == version.version:  # an earlier attempt crowned it and died before it could say so
            return champion, None, Decision("champion", why_champion(version))
        outcome = _judged(client, champion, judge)
        present = by_alias(client, version.name, CHAMPION)
        if present is not None and present.version == champion.version:
            return champion, outcome, decide(str(champion.version), outcome, config)


def _judged(client: Any, champion: Any, judge: Judge) -> Contest | Refusal:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = Champion(
                version=str(champion.version),
                dataset_hash=champion.tags.get("dataset_hash", ""),
                model_dir=fetch_model(client.tracking_uri, champion, Path(scratch)),
                trained_events=fetch_trained_events(client, champion, Path(scratch)),
            )
            return judge(found)
        except DataError as error:
            return Refusal(f"its files cannot be used ({error})")


def _description(version: Any, decision: Decision) -> str:
    text = f"{decision.alias.capitalize()}: {decision.reason}. Pipeline run {version.tags['pipeline_run']}."
    tested = {key: value for key, value in version.tags.items() if key == "test_ndcg_at_10"}
    return text + "".join(f" Test {key.removeprefix('test_')} {float(value):.4f}." for key, value in tested.items())


def _find_version(client: Any, name: str, tags: Mapping[str, str]) -> Any:
    for version in client.search_model_versions(f"name = '{name}' and tags.model_sha256 = '{tags['model_sha256']}'"):
        if all(version.tags.get(key) == value for key, value in tags.items()):
            return version
    return None
