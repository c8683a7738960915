"""kfp's DockerRunner, corrected, and a pipeline or a component run with it.

kfp starts each container so that the daemon removes it when it ends, and takes "no such container" while waiting for
success: a component that fails at once can pass. Here the container stays until its exit code has been read.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfp import components, local


def run_docker_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **options: Any) -> int:
    """Run a container to its end, show its log as it comes, and return its exit code."""
    container = client.containers.run(image=image, command=command, volumes=volumes, detach=True, **options)
    try:
        for line in container.logs(stream=True):
            print(line.decode(errors="replace"), end="")
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


@contextmanager
def containers(root: Path, extra_hosts: dict[str, str], environment: dict[str, str]) -> Iterator[None]:
    """Set kfp.local up so that each task is a container of its own image and user, on the host's network."""
    from kfp.local import docker_task_handler

    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o777)
    local.init(
        local.DockerRunner(network_mode="host", extra_hosts=extra_hosts, environment=environment),
        pipeline_root=str(root),
        enable_caching=False,
    )
    original, docker_task_handler.run_docker_container = docker_task_handler.run_docker_container, run_docker_container
    umask = os.umask(0)  # the image's user is not ours: what we create for it, it may write to
    try:
        yield
    finally:
        os.umask(umask)
        docker_task_handler.run_docker_container = original


def run_compiled(package: Path, arguments: dict[str, Any], log_path: Path) -> dict[str, Any]:
    """Run a compiled pipeline; its whole log goes to a file.

    Raises:
        RuntimeError: a task failed.
    """
    pipeline = components.load_component_from_file(str(package))
    with log_path.open("w") as log, contextlib.redirect_stdout(_Tee(log)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
        return dict(pipeline(**arguments).outputs)


class _Tee(io.TextIOBase):
    """Keeps everything and shows the lines that stages mean for a person."""

    def __init__(self, log: Any) -> None:
        self._log, self._partial = log, ""

    def write(self, text: str) -> int:
        if self._log.closed:  # kfp's logger still holds the stream of an earlier run
            return len(text)
        self._log.write(text)
        self._log.flush()
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            if "»" in line:
                os.write(2, f"    {line.strip()}\n".encode())
        return len(text)
