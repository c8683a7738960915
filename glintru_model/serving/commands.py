"""The command line's doors to what was registered: from a folder or from `models:/name@alias`."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glintru_model.errors import InputError
from glintru_model.progress import say


def tracking_address(runs_dir: Path) -> str:
    """Return MLflow's address: the server that `MLFLOW_TRACKING_URI` names, else the local runs' database.

    Raises:
        InputError: neither is there.
    """
    if address := os.environ.get("MLFLOW_TRACKING_URI", ""):
        return address
    database = runs_dir.resolve() / "mlflow.db"
    if not database.is_file():
        raise InputError(f"{database}: no run has been tracked here; set MLFLOW_TRACKING_URI or give --runs-dir")
    return f"sqlite:///{database}"


def recommend(trained: str, source: Path, output: Path, *, k: int, keep_seen: bool, runs_dir: Path) -> None:
    """Recommend for every user of a Parquet file; see `serving.batch`.

    Raises:
        InputError: the model, the file or k cannot be used.
        DataError: the model's files are gone or broken.
        TrackingError: the registry is not reachable.
    """
    from glintru_model.serving.batch import recommend_file
    from glintru_model.serving.recommender import Recommender

    with _folder_of(trained, runs_dir) as folder:
        recommend_file(Recommender.load(folder), source, output, k=k, filter_seen=not keep_seen)


def export(trained: str, output: Path, runs_dir: Path) -> None:
    """Write a model as a `torch.export` program; see `serving.export`."""
    from glintru_model.serving.export import TOLERANCE, export_model

    with _folder_of(trained, runs_dir) as folder:
        difference = export_model(folder, output)
    say(f"exported scores differ from the model's by at most {difference:.1e} (allowed {TOLERANCE:.0e})")


@contextmanager
def _folder_of(trained: str, runs_dir: Path) -> Iterator[Path]:
    """Yield a model's folder: the one that is named, or what `models:/...` names, for the time of the block."""
    if not trained.startswith("models:"):
        yield Path(trained)
        return
    from glintru_model.serving.fetching import fetch_registered

    with tempfile.TemporaryDirectory() as scratch:
        yield fetch_registered(tracking_address(runs_dir), trained, Path(scratch))


def promote(name: str, version: str, runs_dir: Path) -> None:
    """Make a version the champion by hand."""
    from glintru_model.serving import aliases

    moved = aliases.promote(tracking_address(runs_dir), name, version)
    say(f"{moved.name}: version {moved.version} is champion, {moved.reason}")


def rollback(name: str, runs_dir: Path) -> None:
    """Give the alias `champion` back to the version before the present one."""
    from glintru_model.serving import aliases

    moved = aliases.rollback(tracking_address(runs_dir), name)
    say(f"{moved.name}: version {moved.version} is champion, {moved.reason}")
