"""Metrics of next-item ranking, as pure functions of the target's rank.

Each case has one target, so the ideal DCG is 1 and Recall@k is the hit rate. Ranks are 1-based; the functions
return one value per case, since a mean alone could not be given a confidence interval.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glintru_model.errors import DataError

MAIN_CUTOFF = 10
MISS = 2**31 - 1  # the rank of a target that is no candidate: beyond any cutoff, however small the catalogue
MAIN_METRIC = f"ndcg_at_{MAIN_CUTOFF}"

Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def ndcg(ranks: Int64Array, cutoff: int) -> FloatArray:
    """Return 1 / log2(rank + 1) within the cutoff, else 0 (Järvelin and Kekäläinen 2002, one relevant item)."""
    return np.where(ranks <= cutoff, 1.0 / np.log2(ranks + 1.0), 0.0)


def recall(ranks: Int64Array, cutoff: int) -> FloatArray:
    """Return 1 where the target is within the cutoff, else 0."""
    return (ranks <= cutoff).astype(np.float64)


def reciprocal_rank(ranks: Int64Array, cutoff: int) -> FloatArray:
    """Return 1 / rank within the cutoff, else 0."""
    return np.where(ranks <= cutoff, 1.0 / ranks, 0.0)


_METRICS = {"ndcg": ndcg, "recall": recall, "mrr": reciprocal_rank}


def metrics_from_ranks(ranks: Int64Array, cutoffs: Sequence[int]) -> dict[str, FloatArray]:
    """Compute every metric at every cutoff.

    Args:
        ranks: 1-based rank of each case's target, (C,); `MISS` for a target that is no candidate.
        cutoffs: values of k.

    Returns:
        `ndcg_at_k`, `recall_at_k` and `mrr_at_k` for each k, each (C,).

    Raises:
        DataError: a rank is below 1.
    """
    if len(ranks) and ranks.min() < 1:
        raise DataError(f"rank {ranks.min()} found, ranks begin at 1")
    return {f"{name}_at_{k}": metric(ranks, k) for name, metric in _METRICS.items() for k in cutoffs}
