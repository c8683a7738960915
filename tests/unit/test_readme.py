"""The README promises nothing that is not there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_every_link_and_picture_of_the_project_exists():
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in target]
    assert len(targets) > 3
    assert [target for target in targets if target and not (ROOT / target).exists()] == []


def test_no_placeholder_is_left():
    assert "@@" not in TEXT


def test_every_make_command_exists():
    commands = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]+)", TEXT, flags=re.MULTILINE))
    assert {"pipeline-run", "test", "mlflow-ui"} <= named
    assert named - commands == set()
