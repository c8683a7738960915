"""The Dockerfile's base image where no registry is reachable: a Debian of the same release with its own Python."""

import os
import shutil
import subprocess
from pathlib import Path

from harness.docker_daemon import Docker

STAND_IN = "glintru-e2e-base-python:3.11"
BOOTSTRAP_SECONDS = 600
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_HOOKS = (
    'ln -sf python3 "$1/usr/bin/python" && ln -sf pip3 "$1/usr/bin/pip"',
    'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
    'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/*',
    f'cp {_CA_BUNDLE} "$1{_CA_BUNDLE}"',  # this machine's own certificate authorities
)
_ENVIRONMENT = {"PIP_CERT": _CA_BUNDLE, "SSL_CERT_FILE": _CA_BUNDLE, "REQUESTS_CA_BUNDLE": _CA_BUNDLE}


def can_pull(docker: Docker, image: str) -> bool:
    """Say whether a registry gives the image."""
    try:
        return docker.run("pull", "--quiet", image, check=False, timeout=120).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def ensure_stand_in(docker: Docker, work: Path) -> str:
    """Make the stand-in unless it is there; return its name, or "" where it cannot be made."""
    if docker.run("image", "inspect", STAND_IN, check=False).returncode == 0:
        return STAND_IN
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        return ""
    archive = work / "base.tar"
    packages = "ca-certificates,python3,python3-venv,python3-pip"
    hooks = [f"--customize-hook={hook}" for hook in _HOOKS]
    command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", *hooks, "bookworm", str(archive)]
    try:
        if subprocess.run(command, check=False, timeout=BOOTSTRAP_SECONDS).returncode:
            return ""
    except subprocess.TimeoutExpired:
        return ""
    changes = [part for name, value in _ENVIRONMENT.items() for part in ("--change", f"ENV {name}={value}")]
    docker.run("import", *changes, str(archive), STAND_IN)
    archive.unlink()
    return STAND_IN
