"""Fixtures of the proof on one machine. What cannot be had is skipped, and said loudly at the end."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.base_image import can_pull, ensure_stand_in
from harness.docker_daemon import Docker, docker_daemon
from harness.manifests import OVERLAYS, ROOT, Manifests
from harness.pip_index import pip_configuration
from harness.services import postgres_binaries, running_services, seaweedfs_binary

from tests.kubectl import why_not

CACHE = Path(os.environ.get("E2E_CACHE") or ROOT / "build" / "e2e").resolve()


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)})
    if reasons:
        terminalreporter.write_sep("!", "THE PROOF IS NOT COMPLETE", red=True, bold=True)
        for reason in reasons:
            terminalreporter.write_line(f"{reason.removeprefix('Skipped: ')}", red=True)


@pytest.fixture(scope="session")
def work():
    """A folder that other users (postgres, the images' user) may look into."""
    folder = Path(tempfile.mkdtemp(prefix="glintru-e2e-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def docker():
    with docker_daemon(CACHE / "docker") as found:
        if not isinstance(found, Docker):
            pytest.skip(f"SKIPPED, no Docker: {found}")
        yield found


@pytest.fixture(scope="session")
def images(docker, work):
    """Build the project's Dockerfile, unchanged, by the command that people use; return the two names."""
    base = ""
    default = next(
        line.partition("=")[2]
        for line in (ROOT / "infra/image/Dockerfile").read_text().splitlines()
        if line.startswith("ARG BASE_IMAGE=")
    )
    if not can_pull(docker, default):
        base = ensure_stand_in(docker, work)
        if not base:
            pytest.skip("SKIPPED, no base image: no registry answers, a stand-in needs root, mmdebstrap and Debian")
    script = str(ROOT / "infra/image/build.sh")
    with pip_configuration(work) as pip_conf:
        environment = {**docker.environment, "DOCKER": docker.command, "DOCKER_BUILD_OPTIONS": "--network=host"}
        if base:
            environment |= {"BASE_IMAGE": base, "PIP_CONF": str(pip_conf), "TORCH_CPU_INDEX": ""}
        names = [  # before it: the tree may change while it is built
            subprocess.run([script, what], env=environment, check=True, capture_output=True, text=True).stdout.strip()
            for what in ("name", "server-name")
        ]
        subprocess.run([script], env=environment, check=True)
    return dict(zip(("task", "server"), names, strict=True))


@pytest.fixture(scope="session")
def kind():
    """The rendered kind overlay."""
    if reason := why_not():
        pytest.skip(reason)
    return Manifests.render(OVERLAYS / "kind")


@pytest.fixture(scope="session")
def services(kind, docker, images, work):
    """PostgreSQL, SeaweedFS and MLflow, up."""
    if postgres_binaries() is None:
        pytest.skip("SKIPPED, PostgreSQL is not installed")
    if seaweedfs_binary() is None:
        pytest.skip("SKIPPED, SeaweedFS is not installed")
    with running_services(kind, docker, images["server"], work) as running:
        yield running
