"""The aliases `champion` and `challenger`: who holds them, and moving them by hand with a trace."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from glintru_model.errors import InputError
from glintru_model.tracking import connect, mlflow_errors

CHAMPION, CHALLENGER = "champion", "challenger"
_LATEST_MOVES = 20  # how many moves by hand a description keeps; MLflow takes 5,000 characters


@dataclass(frozen=True)
class RegisteredVersion:
    """A version and where it stands; an untracked run has no version (empty text)."""

    name: str
    version: str
    alias: str
    reason: str


def list_champions(tracking_uri: str, names: Sequence[str]) -> dict[str, RegisteredVersion | None]:
    """Look up each registered model's champion; None where there is none.

    Raises:
        TrackingError: MLflow is not reachable.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        champions = {name: by_alias(client, name, CHAMPION) for name in names}
    return {
        name: found and RegisteredVersion(name, str(found.version), CHAMPION, why_champion(found))
        for name, found in champions.items()
    }


def promote(tracking_uri: str, name: str, version: str) -> RegisteredVersion:
    """Make a version the champion by hand; its tags and its description say when and what it replaced.

    Raises:
        InputError: there is no such version.
        TrackingError: MLflow is not reachable.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        found = _require_version(client, name, version)
        champion = by_alias(client, name, CHAMPION)
        reason = "promoted by hand"
        crown(client, found, reason)
        client.set_model_version_tag(name, found.version, "promoted_at", _now())
        if champion is None or champion.version != found.version:
            place = f" in place of version {champion.version}" if champion else ""
            _add_to_description(client, found, f"Promoted by hand{place}")
    return RegisteredVersion(name, str(found.version), CHAMPION, reason)


def rollback(tracking_uri: str, name: str) -> RegisteredVersion:
    """Give the alias back to the champion before the present one; both versions' tags and descriptions tell.

    Raises:
        InputError: there is no champion, or none before it that still exists.
        TrackingError: MLflow is not reachable.
    """
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        champion = by_alias(client, name, CHAMPION)
        if champion is None:
            raise InputError(f"registered model {name!r} has no champion to roll back from")
        before = champion.tags.get("replaced_version", "")
        if not before:
            raise InputError(f"{name} version {champion.version} is the first champion: nothing to roll back to")
        regained = _require_version(client, name, before)
        client.set_registered_model_alias(name, CHAMPION, before)
        reason = f"rolled back from version {champion.version}"
        for version, trace in (
            (champion.version, {"rolled_back_at": _now(), "rolled_back_to": before}),
            (before, {"champion_since": _now(), "champion_reason": reason}),
        ):
            for key, value in trace.items():
                client.set_model_version_tag(name, version, key, value)
        _add_to_description(client, champion, f"Rolled back to version {before}")
        _add_to_description(client, regained, f"Champion again: {reason}")
    return RegisteredVersion(name, before, CHAMPION, reason)


def crown(client: Any, version: Any, reason: str) -> None:
    """Move the alias `champion`, and note on the version what it replaced, for a rollback."""
    champion = by_alias(client, version.name, CHAMPION)
    if champion is not None and champion.version == version.version:
        return
    replaced = "" if champion is None else str(champion.version)
    for key, value in {"champion_since": _now(), "champion_reason": reason, "replaced_version": replaced}.items():
        client.set_model_version_tag(version.name, version.version, key, value)
    client.set_registered_model_alias(version.name, CHAMPION, version.version)
    challenger = by_alias(client, version.name, CHALLENGER)
    if challenger is not None and challenger.version == version.version:
        client.delete_registered_model_alias(version.name, CHALLENGER)


def _add_to_description(client: Any, version: Any, move: str) -> None:
    """Keep why the version was registered, and below it the latest moves, oldest first."""
    registered, *moves = (version.description or "").split("\n\n")
    moves = [*moves, f"{move} ({_now()})."][-_LATEST_MOVES:]
    client.update_model_version(version.name, version.version, "\n\n".join([registered, *moves]))


def _require_version(client: Any, name: str, version: str) -> Any:
    versions = {str(found.version): found for found in client.search_model_versions(f"name = '{name}'")}
    if not versions:
        known = sorted(found.name for found in client.search_registered_models() if found.latest_versions)
        raise InputError(f"no registered model {name!r} with versions, there are: {', '.join(known) or 'none'}")
    if version not in versions:
        numbers = ", ".join(sorted(versions, key=int))
        raise InputError(f"registered model {name!r} has no version {version!r}, there are: {numbers}")
    return versions[version]


def by_alias(client: Any, name: str, alias: str) -> Any:
    """Return the version that holds an alias; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model, or alias
            return None
        raise


def why_champion(version: Any) -> str:
    """Return the reason noted when the version became champion."""
    return str(version.tags.get("champion_reason", ""))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
