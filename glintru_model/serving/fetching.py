"""A registered version's files, brought back from wherever MLflow keeps them."""

from pathlib import Path
from typing import Any

from glintru_model.errors import DataError, InputError
from glintru_model.layout import TRAINED_EVENTS_FILE
from glintru_model.serving.packaging import model_sha256
from glintru_model.tracking import connect, mlflow_errors

_MODEL_FOLDER = "artifacts/model"  # where a pyfunc keeps its artifact `model`
_ADDRESS = "models:/"


def fetch_model(tracking_uri: str, version: Any, folder: Path) -> Path:
    """Copy a version's weights, settings and vocabulary below `folder`; return where.

    Raises:
        DataError: they are not there any more, or are not those that were registered.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        uri = f"{version.source.rstrip('/')}/{_MODEL_FOLDER}"
        fetched = Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=tracking_uri))
        registered = version.tags.get("model_sha256", "")
        is_whole = not registered or model_sha256(fetched) == registered
    except (MlflowException, OSError) as error:
        _raise_if_unreachable(error)
        raise DataError(
            f"{version.name} version {version.version}: its files are gone from {version.source}"
        ) from error
    if not is_whole:
        raise DataError(f"{version.name} version {version.version}: its files have changed since it was registered")
    return fetched


def fetch_trained_events(client: Any, version: Any, folder: Path) -> Path | None:
    """Copy the record of a version's training events below `folder`; None where its run has none."""
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(version.run_id, TRAINED_EVENTS_FILE, str(folder)))
    except (MlflowException, OSError) as error:
        _raise_if_unreachable(error)
        return None


def fetch_registered(tracking_uri: str, address: str, folder: Path) -> Path:
    """Copy what `models:/<name>@<alias>` or `models:/<name>/<version>` names below `folder`; return where.

    Raises:
        InputError: the address is not of that form, or there is no such model, alias or version.
        DataError: the version's files are gone.
        TrackingError: MLflow is not reachable.
    """
    from mlflow.exceptions import MlflowException

    name, at, alias = address.removeprefix(_ADDRESS).partition("@")
    if not at:
        name, _, alias = name.partition("/")
    if not (address.startswith(_ADDRESS) and name and alias):
        raise InputError(f"model address {address!r}, allowed: models:/<name>@<alias> or models:/<name>/<version>")
    client = connect(tracking_uri)
    with mlflow_errors(tracking_uri):
        try:
            find = client.get_model_version_by_alias if at else client.get_model_version
            version = find(name, alias)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise InputError(
                f"{address}: there is no such registered version ({str(error).splitlines()[0]})"
            ) from error
        return fetch_model(tracking_uri, version, folder)


def _raise_if_unreachable(error: BaseException) -> None:
    """Let a network failure through: it says nothing about the files."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionError | TimeoutError):
            raise error
        cause = cause.__cause__ or cause.__context__
