"""What a cached result depends on."""

import shutil
import subprocess
import sys
from pathlib import Path

import glintru_model
from glintru_model.fingerprint import combine


def fingerprint_of(package_root: Path) -> str:
    program = "from glintru_model.fingerprint import package_fingerprint; print(package_fingerprint())"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=package_root, capture_output=True, text=True, check=True).stdout.strip()


def test_editing_one_source_file_changes_the_package_fingerprint(tmp_path):
    copy = tmp_path / "glintru_model"
    shutil.copytree(Path(glintru_model.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = fingerprint_of(tmp_path)
    assert fingerprint_of(tmp_path) == before
    (copy / "progress.py").write_text((copy / "progress.py").read_text() + "\n# a change\n")
    assert fingerprint_of(tmp_path) != before


def test_parts_are_kept_apart():
    assert combine("ab", "c") != combine("a", "bc")
