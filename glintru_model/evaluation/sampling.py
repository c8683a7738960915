"""Sampled candidates: the protocol of the GLINT-RU paper, for comparison with its tables alone.

Its release (RecBole, mode `pop100`) ranks a target among 100 items drawn with replacement by their number of events
in the log; only the target itself is never drawn, and an item drawn twice counts once. Such figures are far above
those of full ranking and may order models differently (Krichene and Rendle 2020), so they never go by a plain name.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]


def sampled_suffix(num_negatives: int) -> str:
    """Return what every sampled metric's name ends with, e.g. `_pop100`."""
    return f"_pop{num_negatives}"


class PopularitySampler:
    """Draws the negatives of each case: the same ones for every scorer and for every batch size."""

    def __init__(self, counts: Int64Array, num_negatives: int, seed: int) -> None:
        """Take the events of each item (V,), how many to draw for a case, and the seed."""
        self.num_negatives, self._seed = num_negatives, seed
        self._ends = np.cumsum(counts, dtype=np.int64)  # item i owns [end - count, end)
        self._counts = counts

    def draw(self, rows: Int64Array, targets: Int32Array) -> Int32Array:
        """Draw with replacement, by popularity, anything but the target.

        Args:
            rows: numbers of the cases, (B,); they decide about the draws.
            targets: index 1..V of each case's target, (B,).

        Returns:
            Item indices, (B, N); 0 where no other item has an event.
        """
        own, ends = self._counts[targets - 1], self._ends[targets - 1]
        others = self._ends[-1] - own
        places = (_uniform(self._seed, rows, self.num_negatives) * others[:, None]).astype(np.int64)
        places += np.where(places >= (ends - own)[:, None], own[:, None], 0)  # step over the target's own range
        drawn = np.searchsorted(self._ends, places, side="right") + 1
        return np.where(others[:, None] > 0, drawn, 0).astype(np.int32)


def sampled_ranks(scores_BV1: Tensor, targets: Int32Array, negatives: Int32Array) -> Tensor:
    """Rank each target among its own negatives, ties against it, an item that was drawn twice once; (B,)."""
    ordered = np.sort(negatives, axis=1)
    is_first = np.ones(ordered.shape, dtype=bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    counts = torch.from_numpy(is_first & (ordered > 0)).to(scores_BV1.device)
    drawn = torch.from_numpy(ordered.astype(np.int64)).to(scores_BV1.device)
    wanted = torch.from_numpy(targets.astype(np.int64)).to(scores_BV1.device)[:, None]
    ahead = (scores_BV1.gather(1, drawn) >= scores_BV1.gather(1, wanted)) & counts
    return 1 + ahead.sum(dim=1)


def _uniform(seed: int, rows: Int64Array, width: int) -> npt.NDArray[np.float64]:
    """Hash (seed, row, column) to numbers in [0, 1): splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        cells = rows.astype(np.uint64)[:, None] * np.uint64(width) + np.arange(width, dtype=np.uint64)
        mixed: UInt64Array = np.multiply(cells + np.uint64(seed + 1), np.uint64(0x9E3779B97F4A7C15), dtype=np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
