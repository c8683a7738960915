"""Timing on a CUDA device."""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def describe_gpu() -> dict[str, Any]:
    """Say what a GPU's results were measured on."""
    name, version = torch.cuda.get_device_name(), torch.version.cuda
    return {"gpu": name, "torch": torch.__version__, "cuda": version, "python": platform.python_version()}


def milliseconds(step: Callable[[], object], repeats: int = 20) -> float:
    """Return the median of some calls, each from an idle device to its end, after three that do not count."""
    taken = []
    for number in range(3 + repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if number >= 3:
            taken.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(taken)
