"""Whether this machine has a kubectl that renders the overlays."""

import json
import re
import shutil
import subprocess

OLDEST_MINOR = 21  # with kustomize 4: the one before knows no lists of patches


def why_not() -> str:
    """Return why overlays cannot be rendered; empty where they can."""
    if shutil.which("kubectl") is None:
        return "SKIPPED, kubectl is not installed"
    asked = ["kubectl", "version", "--client", "--output=json"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    version = json.loads(done.stdout)["clientVersion"]
    if int(version["major"]) == 1 and int(re.match(r"\d+", version["minor"])[0]) < OLDEST_MINOR:
        return f"SKIPPED, kubectl is {version['gitVersion']}, allowed: from v1.{OLDEST_MINOR} on"
    return ""
