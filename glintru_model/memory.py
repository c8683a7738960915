"""How much memory this process holds and has held, and the return of what it does not need."""

import ctypes
import sys
import time
from pathlib import Path

GROWTH = 2.0
SECONDS_BETWEEN = 5.0  # what is needed again at once costs a fifth of a second to get back

_STATUS, _PAGES = Path("/proc/self/status"), Path("/proc/self/statm")


def peak_resident_bytes() -> int:
    """Return the most resident memory that this process has held so far.

    Where /proc does not tell, `ru_maxrss` does. Linux hands that on from the process that started this one, so that a
    child of a large parent would seem as large.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):  # some sandboxes' kernels leave it out
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class FreedMemory:
    """Gives freed memory back to the system whenever resident memory has grown to `GROWTH` times what is needed.

    Tensors of ever new sizes leave holes in the heap of glibc: training GLINT-RU on MovieLens-1M holds 0.5 GB and
    would grow to 2 GB within ten epochs. Elsewhere than on glibc it does nothing.
    """

    def __init__(self) -> None:
        # not every C library has it; where there is no /proc, growth cannot be told
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _PAGES.exists() else None
        self._needed_pages, self._given_back = self._resident_pages(), -SECONDS_BETWEEN

    def give_back(self) -> None:
        """Look at the growth, and give back if it is time."""
        if not self._trim or self._resident_pages() <= GROWTH * self._needed_pages:
            return
        if time.monotonic() - self._given_back >= SECONDS_BETWEEN:
            self._trim(0)
            self._needed_pages, self._given_back = self._resident_pages(), time.monotonic()

    def _resident_pages(self) -> int:
        return int(_PAGES.read_bytes().split()[1]) if self._trim else 0
