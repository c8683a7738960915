"""How much memory this process holds and has held, and the return of what it does not need."""

import ctypes
import sys
from pathlib import Path

GROWTH = 2.0

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
        self._needed_pages = self._resident_pages()

    def give_back(self) -> None:
        """Look at the growth, and give back if it is time."""
        grown = self._resident_pages()
        if self._trim and grown > GROWTH * self._needed_pages:
            self._trim(0)
            # what grows again to the same size within a step is used, not lost in holes
            self._needed_pages = max(self._resident_pages(), int(grown / GROWTH))

    def _resident_pages(self) -> int:
        return int(_PAGES.read_bytes().split()[1]) if self._trim else 0
