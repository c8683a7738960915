"""`make pipeline-run`: run the pipeline here, or submit the same DAG to a cluster."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glintru_model.command import run_command
from glintru_model.config import PipelineConfig
from glintru_model.config_io import load_pipeline_config
from glintru_model.data.ingest import resolve_source
from glintru_model.earlier import fingerprint_earlier
from glintru_model.errors import InputError
from glintru_model.tracking.client import refuse_credentials
from pipelines.compile import compile_pipeline
from pipelines.resources import PROFILES, Profile
from pipelines.summary import format_summary

COMPILED = "build/sequential-recommenders-{profile}.yaml"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; the Makefile passes its variables on as options."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.run", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="YAML file of a run (default: the quickstart)")
    parser.add_argument("--data", default="", help="the log: a path, s3://..., https://... or a catalog name")
    parser.add_argument("--runner", choices=("local", "kfp"), default="kfp" if os.environ.get("KFP_HOST") else "local")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="gpu", help="resources on a cluster")
    parser.add_argument("--image", default="", help="image of the tasks on a cluster")
    parser.add_argument("--parallelism", type=int, default=0, help="tuning workers of a model at a time on a cluster")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of one node for each model's final training")
    _add_backend_arguments(parser)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="everything a local run leaves behind")
    parser.add_argument("--compile-only", action="store_true", help="write the compiled pipeline and stop")
    parser.add_argument("--debug", action="store_true", help="show the full log and tracebacks")
    return parser.parse_args(arguments)


def _add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Credentials come from the environment or from files: an option's value is seen by everyone on the machine."""
    group = parser.add_argument_group("Kubeflow Pipelines")
    group.add_argument("--host", default=os.environ.get("KFP_HOST", ""), help="address of the KFP API (KFP_HOST)")
    group.add_argument(
        "--namespace", default=os.environ.get("KFP_NAMESPACE", ""), help="your profile's (KFP_NAMESPACE)"
    )
    group.add_argument("--token-file", type=Path, default=None, help="file with a bearer token (or KFP_TOKEN)")
    group.add_argument("--cookie-file", type=Path, default=None, help="file with a session cookie (or KFP_COOKIE)")
    group.add_argument(
        "--service-account-token",
        default=os.environ.get("KFP_SERVICE_ACCOUNT_TOKEN", ""),
        help="path of a projected service account token (KFP_SERVICE_ACCOUNT_TOKEN)",
    )
    group.add_argument("--mlflow-url", default=os.environ.get("MLFLOW_URL", ""), help="MLflow's UI (MLFLOW_URL)")
    group.add_argument("--schedule", default="", metavar="CRON", help="start it by the clock instead of now (UTC)")
    group.add_argument("--pending-minutes", type=float, default=30, help="how long a task may wait for a node")


def main(arguments: list[str] | None = None) -> int:
    """Run, submit or compile; return the process's exit code."""
    options = parse_arguments(arguments)
    return run_command(lambda: _run(options), debug=options.debug)


def _run(options: argparse.Namespace) -> int:
    overrides: dict[str, Any] = {"ingest.source": options.data} if options.data else {}
    default = Path(__file__).parent / "configs" / ("quickstart.yaml" if not options.data else "own-data.yaml")
    config = load_pipeline_config(options.config or default, overrides)
    refuse_credentials(config.ingest.source, "ingest.source", "use s3:// with AWS_*, or fetch the file first")
    run_name = f"{config.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if options.compile_only:
        path = compile_pipeline(config, _profile(options), _package(options), options.image)
        print(f"compiled: {path} (profile {options.profile})")
        return 0
    if options.runner == "kfp" or options.schedule:
        return _submit(config, run_name, options)
    return _run_here(config, run_name, options)


def _profile(options: argparse.Namespace) -> Profile:
    profile = PROFILES[options.profile]
    profile = profile.with_parallelism(options.parallelism) if options.parallelism else profile
    return profile.with_training_gpus(options.gpus) if options.gpus else profile


def _package(options: argparse.Namespace) -> Path:
    return Path(COMPILED.format(profile=options.profile))


def _submit(config: PipelineConfig, run_name: str, options: argparse.Namespace) -> int:
    from pipelines.backend import Backend
    from pipelines.submit import Submission, schedule, submit

    if not options.host:
        raise InputError("RUNNER=kfp needs the address of the KFP API: set KFP_HOST")
    if options.profile == "local":
        raise InputError("PROFILE=local asks for nothing of a cluster, allowed: gpu, kind")
    refuse_credentials(options.mlflow_url, "MLFLOW_URL", "people sign in there themselves")
    backend = Backend(
        options.host,
        options.namespace,
        _credential(options.token_file, "KFP_TOKEN"),
        _credential(options.cookie_file, "KFP_COOKIE"),
        options.service_account_token,
    )
    submission = Submission(
        config, _profile(options), _package(options), options.image, options.mlflow_url, options.pending_minutes * 60
    )
    if options.schedule:
        schedule(submission, backend, options.schedule)
        return 0
    print(f"Submitting to Kubeflow Pipelines at {options.host} (profile {options.profile}).")
    submit(submission, backend, run_name)
    return 0


def _credential(path: Path | None, variable: str) -> str:
    if path is None:
        return os.environ.get(variable, "")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"{path}: cannot read the credential: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot read the credential: it is no text") from error


def _run_here(config: PipelineConfig, run_name: str, options: argparse.Namespace) -> int:
    print("Running on this machine (kfp.local; no server, no cluster). Set KFP_HOST to submit to a cluster instead.")
    # A wrong path ends here, before any work.
    source = resolve_source(config.ingest, options.runs_dir / "downloads")
    fingerprint_earlier(config.sequences, config.models.glintru, config.models.sasrec)
    print(f"Log: {source.description}. Run: {run_name}. Outputs: {options.runs_dir / run_name}/\n")
    from pipelines.local_run import run_locally

    summary = run_locally(config, run_name, options.runs_dir, debug=options.debug)
    print(format_summary(summary, options.runs_dir / run_name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
