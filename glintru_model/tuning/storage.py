"""Where studies live: a journal file on one machine, a database on a cluster."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from glintru_model.errors import ConfigError, GlintruError, TrackingError
from glintru_model.tracking.client import without_secrets

STORAGE_VARIABLE = "GLINTRU_STUDY_STORAGE"
JOURNAL_PREFIX = "journal:"
MAX_RETRIES = 3  # how often a trial whose worker vanished is run again
_HEARTBEAT_SECONDS = 60


def resolve_storage(storage: str) -> str:
    """Return the study's address: the one given or, where that is empty, the environment's.

    An address with a password is taken from the environment alone, because a parameter is stored and shown.

    Raises:
        ConfigError: there is no address, or one given with a password.
    """
    address = storage or os.environ.get(STORAGE_VARIABLE, "")
    if not address:
        raise ConfigError(f"no study storage: give journal:PATH or a database URL, or set {STORAGE_VARIABLE}")
    if storage and not storage.startswith(JOURNAL_PREFIX) and urlsplit(storage).password:
        raise ConfigError(f"study storage ({urlsplit(storage).scheme}://...) holds a password: set {STORAGE_VARIABLE}")
    if not address.startswith(JOURNAL_PREFIX) and "://" not in address:
        raise ConfigError(f"study storage {address!r}, allowed: journal:PATH or a database URL")
    return address


def open_storage(address: str, *, create: bool) -> Any:
    """Open Optuna's storage at a resolved address.

    Args:
        address: what `resolve_storage` returned.
        create: make a journal's folder and file; without it they must be there.

    Raises:
        TrackingError: it is not there or not reachable.
    """
    quieten()
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    with study_errors(address, OSError, ImportError, ValueError):  # a driver that is not installed is an ImportError
        if not address.startswith(JOURNAL_PREFIX):
            return RDBStorage(
                address,
                engine_kwargs={"pool_pre_ping": True},  # a trial takes minutes; the server may hang up meanwhile
                heartbeat_interval=_HEARTBEAT_SECONDS,
                heartbeat_stale_trial_callback=retry_callback(),
            )
        path = Path(address.removeprefix(JOURNAL_PREFIX)).resolve()
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            raise TrackingError(f"study storage {address}: no such file, create the study first")
        # the lock by exclusive creation also holds on NFS, and its file names no target that could be missing
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def retry_callback() -> Any:
    """Make Optuna's callback that queues the settings of a vanished trial again."""
    quieten()
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    return RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)


def quieten() -> None:
    """Keep Optuna's log lines and its warnings about experimental features off the user's screen."""
    import optuna

    optuna.logging.set_verbosity(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@contextmanager
def study_errors(address: str, *further: type[Exception]) -> Iterator[None]:
    """Turn what Optuna or its database raises (and `further` types) into one line of ours.

    Raises:
        TrackingError: in place of the library's failure, with that as its cause.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except GlintruError:
        raise
    except (OptunaError, SQLAlchemyError, *further) as error:
        cause = error.__cause__ or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        reason = without_secrets(lines[0] if lines else type(cause).__name__)[:300]
        raise TrackingError(f"study storage {without_secrets(address)}: {reason}") from error
