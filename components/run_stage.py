"""Runs a stage inside a component's process and turns a typed error into one line and an exit code."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from glintru_model.errors import GlintruError
from glintru_model.files import write_json
from glintru_model.progress import say

P = ParamSpec("P")
T = TypeVar("T")

ERROR_FILE_VARIABLE = "GLINTRU_ERROR_FILE"
DEBUG_VARIABLE = "GLINTRU_DEBUG"


def run_stage(stage: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the stage; a typed error ends the process with its exit code and one line instead of a traceback.

    Where `GLINTRU_ERROR_FILE` names a file (the local runner sets it) the error is also left there, because
    kfp.local keeps only the fact of a failure. `GLINTRU_DEBUG=1` shows the traceback.
    """
    try:
        return stage(*args, **kwargs)
    except GlintruError as error:
        if error_file := os.environ.get(ERROR_FILE_VARIABLE):
            write_json(Path(error_file), {"message": str(error), "exit_code": error.exit_code})
        if os.environ.get(DEBUG_VARIABLE):
            raise
        say(f"error: {error}")
        sys.exit(error.exit_code)


def read_error(path: Path) -> tuple[str, int] | None:
    """Read what `run_stage` left, as (message, exit code); None where no stage left anything."""
    if not path.is_file():
        return None
    left = json.loads(path.read_text(encoding="utf-8"))
    return left["message"], left["exit_code"]
