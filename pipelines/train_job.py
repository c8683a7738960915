"""Training as a TrainJob of Kubeflow Trainer: on several nodes of a cluster, or in processes of this machine.

    python -m pipelines.train_job --dataset DIR --best FILE --output DIR [--backend local] [--processes 2]
    python -m pipelines.train_job ... --backend kubernetes --image NAME --nodes 2 --gpus 8

On a cluster, torchrun starts a process for each GPU of each node; the paths lie on a volume that the training runtime
mounts on all of them, and `--image` names the image of the tasks.
"""

import argparse
import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from glintru_model.command import run_command
from glintru_model.config import EvaluationConfig
from glintru_model.errors import GlintruError, InputError, PipelineError
from glintru_model.progress import say

RUNTIME = "torch-distributed"  # the name that Kubeflow Trainer's own manifests give it
_POLL_SECONDS = 2


def train_model(arguments=None, **keywords):
    """Train one recommender: the function that a TrainJob runs. Its source travels alone, so it imports inside.

    The local backend hands its arguments over as one dict, the Kubernetes backend as keywords.
    """
    import sys

    values = {**(arguments or {}), **keywords}
    sys.path.extend(values.pop("python_path"))  # empty on a cluster: the image holds the package
    from glintru_model import stages

    stages.train(run_path="", **values)


def run_train_job(
    dataset: Path,
    best: Path,
    output: Path,
    *,
    backend: str,
    image: str = "",
    nodes: int = 1,
    gpus: int = 0,
    processes: int = 0,
    timeout_seconds: int = 24 * 3600,
) -> None:
    """Submit the job, pass its log on, and wait for its end.

    Args:
        dataset: what `build_sequences` wrote.
        best: what `select_hyperparameters` wrote.
        output: where the model goes.
        backend: `local` or `kubernetes`.
        image: the image of the job's pods on Kubernetes.
        nodes: pods of the job on Kubernetes; all share each batch.
        gpus: GPUs of each of them.
        processes: of a local job; 0 is one for each GPU, or one.
        timeout_seconds: how long it may take.

    Raises:
        InputError: a path does not exist.
        PipelineError: Kubeflow Trainer is not installed or not reachable, or the job failed.
    """
    local = backend == "local"
    for path in (dataset, best) if local else ():
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if local and (nodes > 1 or gpus):
        raise InputError(f"--nodes {nodes} --gpus {gpus}: this machine is one node with the GPUs it has")
    try:
        from kubeflow.trainer import CustomTrainer
    except ImportError as error:
        raise PipelineError("Kubeflow Trainer's SDK is missing: pip install 'glintru-pipeline[trainer]'") from error
    values = {"dataset_dir": dataset, "best_path": best, "model_dir": output}
    arguments = {
        **{name: str(path.resolve() if local else path) for name, path in values.items()},
        "evaluation": EvaluationConfig().model_dump_json(),
        "python_path": [path or str(Path.cwd()) for path in sys.path] if local else [],
    }
    where: dict[str, Any] = (
        _here(processes)
        if local
        else {"image": image or None, "resources_per_node": {"gpu": gpus} if gpus else None, "num_nodes": nodes}
    )
    _run(CustomTrainer(func=train_model, func_args=arguments, **where), local, timeout_seconds)


def _here(processes: int) -> dict[str, Any]:
    """Say how the local backend, which runs torchrun in a fresh environment, gets the same torch and the processes."""
    import torch

    count = processes or max(1, torch.cuda.device_count())
    version = importlib.metadata.version("torch").partition("+")[0]
    return {
        "packages_to_install": [f"torch=={version}"],
        "env": {**os.environ, "PET_NPROC_PER_NODE": str(count)},
    }


def _run(trainer: Any, local: bool, timeout_seconds: int) -> None:
    name = ""
    try:
        client = _client(local)
        name = client.train(runtime=client.get_runtime(RUNTIME), trainer=trainer)
        say(f"TrainJob {name}: submitted")
        status = _wait(client, name, timeout_seconds)
        log = [line for part in client.get_job_logs(name) for line in part.splitlines()]
    except GlintruError:
        raise
    except Exception as error:  # whatever the SDK and its Kubernetes client raise
        raise PipelineError(f"Kubeflow Trainer: {' '.join(str(error).split())[:300]}") from error
    finally:
        if local and name:
            _remove_environment(name)
    for line in log:
        print(line)
    if status != "Complete":
        raise PipelineError(f"TrainJob {name} ended as {status.lower()}: {_reason(log)}")
    say(f"TrainJob {name}: complete")


def _reason(log: list[str]) -> str:
    """Find the error that a traceback ends with; ours before torchrun's own about it."""
    ours = [line.partition("glintru_model.errors.")[2] for line in log if "glintru_model.errors." in line]
    any_error = [line.strip() for line in log if "Error: " in line]
    return next(iter([*ours, *any_error]), "see its log above")


def _remove_environment(name: str) -> None:
    """Remove what the local backend installed: it does so itself only after a success."""
    for folder in Path(tempfile.gettempdir()).glob(f"{name}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _client(local: bool) -> Any:
    from kubeflow.trainer import KubernetesBackendConfig, LocalProcessBackendConfig, TrainerClient

    return TrainerClient(backend_config=LocalProcessBackendConfig() if local else KubernetesBackendConfig())


def _wait(client: Any, name: str, timeout_seconds: int) -> str:
    deadline = time.monotonic() + timeout_seconds
    while (status := str(client.get_job(name).status)) not in ("Complete", "Failed"):
        if time.monotonic() > deadline:
            client.delete_job(name)
            raise PipelineError(f"TrainJob {name}: no end after {timeout_seconds} s, deleted")
        time.sleep(_POLL_SECONDS)
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run a TrainJob; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.train_job", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--best", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--backend", choices=("local", "kubernetes"), default="local")
    parser.add_argument("--image", default="", help="image of the job's pods on Kubernetes")
    parser.add_argument("--nodes", type=int, default=1, help="pods of the job on Kubernetes")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of each of them")
    parser.add_argument("--processes", type=int, default=0, help="of a local job (default: one for each GPU, or one)")
    options = parser.parse_args(arguments)
    return run_command(
        lambda: run_train_job(
            options.dataset,
            options.best,
            options.output,
            backend=options.backend,
            image=options.image,
            nodes=options.nodes,
            gpus=options.gpus,
            processes=options.processes,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
