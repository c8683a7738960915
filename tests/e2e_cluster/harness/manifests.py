"""A rendered overlay, read as the cluster would read it: objects, a container's environment and arguments."""

import base64
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
OVERLAYS = ROOT / "infra" / "kustomize" / "overlays"


class Manifests:
    """The objects of one overlay."""

    def __init__(self, text: str) -> None:
        self.objects: list[dict[str, Any]] = [found for found in yaml.safe_load_all(text) if found]

    @classmethod
    def render(cls, folder: Path) -> "Manifests":
        """Render a folder offline: a remote base would fail without a network."""
        done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return cls(done.stdout)

    def get(self, kind: str, name: str, namespace: str = "glintru") -> dict[str, Any]:
        """Return one object."""
        (found,) = [
            o
            for o in self.objects
            if o["kind"] == kind and o["metadata"]["name"] == name and o["metadata"].get("namespace") == namespace
        ]
        return found

    def data(self, kind: str, name: str, namespace: str = "glintru") -> dict[str, str]:
        """Return the entries of a ConfigMap or, decoded, of a Secret."""
        entries = self.get(kind, name, namespace)["data"]
        return {k: base64.b64decode(v).decode() for k, v in entries.items()} if kind == "Secret" else dict(entries)

    def environment(self, container: dict[str, Any]) -> dict[str, str]:
        """Resolve a container's environment."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            kind = "Secret" if "secretRef" in source else "ConfigMap"
            found |= self.data(kind, source["secretRef" if kind == "Secret" else "configMapRef"]["name"])
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            found[entry["name"]] = (
                self.data("Secret", reference["name"])[reference["key"]] if reference else entry["value"]
            )
        return found

    def arguments(self, container: dict[str, Any]) -> list[str]:
        """Return a container's arguments with `$(NAME)` filled in."""
        environment = self.environment(container)
        return [re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], text) for text in container.get("args", [])]


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    """Return the one container of a Deployment, StatefulSet, Job or CronJob."""
    spec = workload["spec"]
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    (container,) = spec["template"]["spec"]["containers"]
    return dict(container)
