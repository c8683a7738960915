"""Columns of numbers on disk: written once, read back in chunks, so that memory holds one chunk at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROWS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class ColumnFile:
    """A flat file of one numeric type.

    Attributes:
        path: the file.
        dtype: the type of its values.
    """

    path: Path
    dtype: npt.DTypeLike

    def read(self, first: int, last: int) -> npt.NDArray[Any]:
        """Read the values first..last - 1."""
        size = np.dtype(self.dtype).itemsize
        return np.fromfile(self.path, dtype=self.dtype, count=last - first, offset=first * size)

    def map(self) -> npt.NDArray[Any]:
        """Map the whole file, read-only."""
        if self.path.stat().st_size == 0:
            return np.empty(0, dtype=self.dtype)
        return np.memmap(self.path, dtype=self.dtype, mode="r")


def chunks(total: int, rows: int = ROWS_PER_CHUNK) -> Iterator[tuple[int, int]]:
    """Cut 0..total into ranges of at most `rows`."""
    for first in range(0, total, rows):
        yield first, min(first + rows, total)
