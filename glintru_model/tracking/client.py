"""The connection to MLflow: quiet, with short timeouts, without credentials in an address, with typed errors."""

import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from glintru_model.errors import ConfigError, GlintruError, TrackingError

# 3 retries of a refused connection end after about 12 seconds; MLflow's own 7 take four minutes.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_SECRET_KEY = re.compile(r"password|passwd|token|secret|signature|credential|^sig$|^sas$|api.?key", re.IGNORECASE)
_INSTEAD = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) instead"
_USERINFO = re.compile(r"""(?<=://)[^/@\s"']+@""")
_QUERY = re.compile(r"""(://[^?\s"']+)\?[^\s"']+""")


def connect(tracking_uri: str) -> Any:
    """Make an `MlflowClient` for a tracking address; a new sqlite database gets its folder and its tables.

    Raises:
        ConfigError: the address holds credentials, or is a folder (MLflow's file store takes no registry).
        TrackingError: the database cannot be opened.
    """
    refuse_credentials(tracking_uri, "tracking address")
    if "://" not in tracking_uri and not tracking_uri.startswith(("sqlite:", "databricks")):
        raise ConfigError(f"tracking address {tracking_uri!r}: expected sqlite:///path, http://... or https://...")
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    with mlflow_errors(tracking_uri):
        if database := _sqlite_path(tracking_uri):
            database.parent.mkdir(parents=True, exist_ok=True)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"mlflow(\.|$)")
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def refuse_credentials(address: str, what: str, instead: str = _INSTEAD) -> None:
    """Refuse an address that holds a user, a password or a token: addresses are stored and shown.

    Raises:
        ConfigError: it does; the message does not repeat it.
    """
    parts = urlsplit(address)
    secret = "@" in parts.netloc or any(_SECRET_KEY.search(key) for key, _ in parse_qsl(parts.query))
    if secret:
        raise ConfigError(f"{what} ({parts.scheme}://...) holds credentials: take them out; {instead}")


def without_secrets(text: str) -> str:
    """Take users, passwords and query strings out of every address in a text."""
    return _QUERY.sub(r"\1", _USERINFO.sub("", text))


def artifact_uri(tracking_uri: str, location: str) -> str | None:
    """Make an artifact location explicit, so that MLflow never falls back to `./mlruns`.

    Returns:
        A URI; None leaves the choice to a server.
    """
    if "://" in location or location.startswith("mlflow-artifacts:"):
        return location
    if location:
        return Path(location).resolve().as_uri()
    database = _sqlite_path(tracking_uri)
    return (database.parent / "artifacts").as_uri() if database else None


@contextmanager
def mlflow_errors(tracking_uri: str) -> Iterator[None]:
    """Turn what MLflow (or its database, or the network) raises into one line of ours.

    Raises:
        TrackingError: in place of the library's failure, with that as its cause.
    """
    try:
        yield
    except GlintruError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow", "sqlalchemy", "requests", "urllib3", "botocore")) and (
            not isinstance(error, OSError)
        ):
            raise
        raise TrackingError(f"MLflow at {without_secrets(tracking_uri)}: {_reason(error)}") from error


def _sqlite_path(tracking_uri: str) -> Path | None:
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0]).resolve()


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionError | TimeoutError | socket.gaierror):
            return f"not reachable: {cause.strerror or 'no answer in time'}"
        cause = cause.__cause__ or cause.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_secrets(lines[0] if lines else type(error).__name__)[:300]
