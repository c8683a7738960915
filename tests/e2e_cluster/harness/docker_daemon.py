"""A Docker daemon: the one that runs, or one of our own for the length of the tests."""

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60
ANSWER_SECONDS = 20
_PROBE = "glintru-e2e-probe:1"


@dataclass(frozen=True)
class Docker:
    """The command, and the environment that leads it to the daemon."""

    command: str
    environment: dict[str, str]

    def run(self, *arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run one docker command and return what it printed."""
        done = subprocess.run(
            [self.command, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"docker {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done


def _command() -> str | None:
    """Prefer the distribution's client: it can build with secrets."""
    return os.environ.get("DOCKER") or next(
        (p for p in ("/usr/bin/docker",) if Path(p).exists()), shutil.which("docker")
    )


def _answers(docker: Docker) -> bool:
    try:
        return docker.run("version", check=False, timeout=ANSWER_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _cannot_run(docker: Docker, work: Path) -> str:
    """Return why the daemon runs no container, as one without the right to mount; empty where it does."""
    archive = work / "probe.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w") as layer:
        layer.addfile(tarfile.TarInfo("nothing"))
    made = docker.run("import", str(archive), _PROBE, check=False)
    archive.unlink()
    if made.returncode:
        return made.stderr.strip()
    ran = docker.run("run", "--rm", "--network=host", _PROBE, "/absent", check=False)
    docker.run("rmi", "--force", _PROBE, check=False)
    # the image holds no program: that it is not found is all that may go wrong
    return "" if "no such file or directory" in ran.stderr else ran.stderr.strip()


@contextmanager
def docker_daemon(work: Path) -> Iterator[Docker | str]:
    """Give a reachable daemon, or the reason why there is none."""
    command = _command()
    if command is None:
        yield "docker is not installed"
        return
    present = Docker(command, dict(os.environ))
    if _answers(present):
        reason = _cannot_run(present, work)
        yield f"the Docker daemon runs no container: {reason}" if reason else present
        return
    dockerd = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/usr/local/sbin")
    if dockerd is None or os.geteuid() != 0:
        yield "no Docker daemon answers, and only root can start one (package docker.io)"
        return
    with _own_daemon(dockerd, command, work) as docker:
        reason = _cannot_run(docker, work) if isinstance(docker, Docker) else ""
        yield f"an own Docker daemon runs no container: {reason}" if reason else docker


@contextmanager
def _own_daemon(dockerd: str, command: str, work: Path) -> Iterator[Docker | str]:
    """Start a daemon that touches neither the firewall nor the machine's network; containers use the host's."""
    socket = f"unix://{work / 'docker.sock'}"
    places = [f"--data-root={work / 'data'}", f"--exec-root={work / 'exec'}", f"--pidfile={work / 'docker.pid'}"]
    network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "exec", ignore_errors=True)  # an earlier daemon's process ids may be other processes' now
    with (work / "dockerd.log").open("w") as log:
        daemon = subprocess.Popen([dockerd, "-H", socket, *places, *network], stdout=log, stderr=subprocess.STDOUT)
    docker = Docker(command, {**os.environ, "DOCKER_HOST": socket})
    before, os.environ["DOCKER_HOST"] = os.environ.get("DOCKER_HOST"), socket  # kfp's runner reads it there
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(docker):
            if daemon.poll() is not None or time.monotonic() > deadline:
                last = (work / "dockerd.log").read_text().strip().splitlines()[-1:]
                yield f"an own Docker daemon did not start: {' '.join(last)}"
                return
            time.sleep(1)
        yield docker
    finally:
        daemon.terminate()
        try:
            daemon.wait(timeout=60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        # the namespace that containers shared stays mounted after the daemon's end: its folder could not be removed
        subprocess.run(["umount", str(work / "exec" / "netns" / "default")], capture_output=True, check=False)
        if before is None:
            os.environ.pop("DOCKER_HOST")
        else:
            os.environ["DOCKER_HOST"] = before
