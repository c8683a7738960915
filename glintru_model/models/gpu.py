"""Whether a GPU can have kernels of our own, which Triton compiles."""

import os
import shutil
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

from glintru_model.progress import say

_TF32_CAPABILITY = (8, 0)  # Ampere


def has_kernels(device: torch.device) -> bool:
    """Tell whether Triton is here, as in torch's CUDA builds for Linux, and the device has TF32 products."""
    return device.type == "cuda" and _has_triton() and torch.cuda.get_device_capability(device) >= _TF32_CAPABILITY


@cache
def _has_triton() -> bool:
    if torch.version.cuda is None or find_spec("triton") is None:
        return False
    # Triton builds its launcher with them
    missing = []
    if not (any(map(shutil.which, ("gcc", "clang"))) or "CC" in os.environ):
        missing.append("no C compiler (gcc, clang or CC)")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("no Python.h")
    if missing:
        needs = " and ".join(missing)
        say(f"{needs} is found, which Triton needs: the GPU goes without kernels, which is slower")
    return not missing
