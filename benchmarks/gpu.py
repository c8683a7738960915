"""Timing on a CUDA device, or on the CPU where there is none."""

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
    wait: Callable[[], None] = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for number in range(3 + repeats):
        wait()
        begin = time.perf_counter()
        step()
        wait()
        if number >= 3:
            taken.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(taken)
