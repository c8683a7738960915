"""Columns of numbers on disk: written once, read back in chunks, so that memory holds a few chunks at a time."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

ROWS_PER_CHUNK = 1_000_000
_NUM_THREADS = min(4, os.cpu_count() or 1)  # each holds one chunk, about 60 MB with what is made of it

Task = TypeVar("Task")
Result = TypeVar("Result")


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


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Do the work of each task, a few at a time on threads (numpy lets go of the interpreter); yield in their order.

    A task is taken up only when there is room for its result, so that memory holds no more than these few.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        begun: deque[Future[Result]] = deque()
        for task in tasks:
            begun.append(pool.submit(work, task))
            if len(begun) > _NUM_THREADS:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
