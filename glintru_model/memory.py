"""How much memory this process has held."""

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_resident_bytes() -> int:
    """Return the most resident memory that this process has held so far.

    Where there is no /proc, `ru_maxrss` tells. Linux hands that on from the process that started this one, so that a
    child of a large parent would seem as large.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
