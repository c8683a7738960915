"""The commit a run was started from, and the tag of the image built from it."""

import subprocess
from pathlib import Path

from glintru_model import __version__


def git_commit() -> str:
    """Return the checkout's commit, with `-dirty` where files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parent

    def ask(*arguments: str) -> str:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    try:
        commit = ask("rev-parse", "HEAD")
        return f"{commit}-dirty" if commit and ask("status", "--porcelain", "--untracked-files=no") else commit
    except OSError:  # no git on this machine
        return ""


def image_tag() -> str:
    """Return version + commit, as `infra/image/build.sh` tags the image; outside a checkout the version alone."""
    commit = git_commit()
    return f"{__version__}-{commit[:12]}{'-dirty' if commit.endswith('-dirty') else ''}" if commit else __version__
