"""The k-th smallest of more numbers than memory holds, exactly, by narrowing the range that it lies in."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

_NUM_BINS = 1 << 16


def kth_smallest(
    chunks: Callable[[], Iterable[npt.NDArray[np.int64]]], low: int, high: int, ranks: Sequence[int]
) -> list[int]:
    """Find several order statistics together.

    Each pass over the numbers narrows every range by a factor of 65,536: two passes for times that span less than
    136 years in seconds.

    Args:
        chunks: begins a new pass over the numbers.
        low, high: bounds that all of them lie within.
        ranks: 1 is the smallest.

    Returns:
        The number at each rank.
    """
    bounds, left = [(low, high)] * len(ranks), list(ranks)
    while any(first < last for first, last in bounds):
        widths = [-(-(last - first + 1) // _NUM_BINS) for first, last in bounds]
        counts = np.zeros((len(ranks), _NUM_BINS), dtype=np.int64)
        for numbers in chunks():
            for row, ((first, last), width) in enumerate(zip(bounds, widths, strict=True)):
                inside = numbers[(numbers >= first) & (numbers <= last)]
                # Unsigned, because the distance of two int64 may not fit into one.
                bins = (inside.view(np.uint64) - np.uint64(first % 2**64)) // np.uint64(width)
                counts[row] += np.bincount(bins.astype(np.int64), minlength=_NUM_BINS)
        for row, ((first, last), width) in enumerate(zip(bounds, widths, strict=True)):
            below = np.cumsum(counts[row])
            number = int(np.searchsorted(below, left[row]))
            left[row] -= int(below[number] - counts[row, number])
            bounds[row] = (first + number * width, min(first + (number + 1) * width - 1, last))
    return [first for first, _ in bounds]
