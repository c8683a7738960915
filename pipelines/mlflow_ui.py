"""`make mlflow-ui`: MLflow's UI over the local runs, opened at the comparison of the last run's two models."""

import argparse
import subprocess
import sys
from pathlib import Path

from glintru_model.command import run_command
from glintru_model.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison's address and run MLflow's server until it is ended; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.mlflow_ui", description=__doc__)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args(arguments)
    return run_command(lambda: _serve(options.runs_dir, options.port))


def _serve(runs_dir: Path, port: int) -> int:
    uri = _local_database(runs_dir)
    from glintru_model.tracking import comparison_path

    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)")
    if path := comparison_path(uri):
        print(f"the last run's models side by side: http://127.0.0.1:{port}/{path}", flush=True)
    command = ["ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.run([sys.executable, "-m", "mlflow", *command], check=False).returncode


def _local_database(runs_dir: Path) -> str:
    database = runs_dir.resolve() / "mlflow.db"
    if not database.is_file():
        raise InputError(f"{database}: no run has been tracked here yet; `make pipeline-run` first, or RUNS=folder")
    return f"sqlite:///{database}"


if __name__ == "__main__":
    sys.exit(main())
