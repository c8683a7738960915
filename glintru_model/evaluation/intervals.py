"""Bootstrap confidence intervals of means over users (Efron 1979), vectorised and seeded.

A metric takes few distinct values (NDCG@10 has eleven), and n draws with replacement hit them as a multinomial
draw does. So a resample is one multinomial vector over the distinct values, not n draws: same distribution, and the
cost does not grow with the number of users.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glintru_model.errors import DataError

CONFIDENCE = 0.95
_MAX_DISTINCT = 4096
_DRAWS_AT_ONCE = 4_000_000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over the same users, its 95 % interval and two-sided p-value (of no difference)."""

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def verdict(self) -> int:
        """1 if a is better, -1 if b is better, 0 if the interval contains 0."""
        return int(self.low > 0) - int(self.high < 0)


def estimate(values: FloatArray, samples: int, seed: int) -> Estimate:
    """Take the mean of per-user values with its bootstrap interval.

    Raises:
        DataError: there are no values.
    """
    low, high = bootstrap_interval(values, samples, seed)
    return Estimate(float(np.mean(values)), low, high)


def bootstrap_interval(values: FloatArray, samples: int, seed: int) -> tuple[float, float]:
    """Bound the mean of per-user values by the percentiles of its bootstrap distribution.

    Args:
        values: one value per user, (U,).
        samples: number of resamples.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        DataError: there are no values.
    """
    return _percentiles(_resampled_means(values, samples, seed))


def by_user(values: FloatArray, users: npt.NDArray[np.int64]) -> FloatArray:
    """Gather the values of cases into one value a user whose mean over users is the mean over cases.

    A user with several cases is resampled as a whole: what she does is not independent of what she did before. The
    mean is then a ratio, sum of values over number of cases; these are its values linearised (Cochran 1977, 6.8).

    Args:
        values: one value per case, (C,).
        users: whose case it is, (C,).

    Returns:
        (U,) for the U users that occur, in ascending order; the values themselves where each has one case.
    """
    _, rows, counts = np.unique(users, return_inverse=True, return_counts=True)
    if len(counts) == 0:
        return np.asarray(values, dtype=np.float64)
    mean = float(np.mean(values))
    sums = np.asarray(np.bincount(rows, weights=values), dtype=np.float64)
    return sums if counts.max() == 1 else mean + (sums - mean * counts) * (len(counts) / len(values))


def paired_bootstrap(a: FloatArray, b: FloatArray, samples: int, seed: int) -> PairedDifference:
    """Compare two systems on the same users by resampling the users' differences.

    Args:
        a, b: the same metric of the same users in the same order, (U,).
        samples: number of resamples.
        seed: of the resampling.

    Raises:
        DataError: the lengths differ, or there are no values.
    """
    if len(a) != len(b):
        raise DataError(f"{len(a)} and {len(b)} values cannot be paired, the users must be the same")
    differences = np.asarray(a, dtype=np.float64) - b
    means = _resampled_means(differences, samples, seed)
    # The observed sample counts as one resample, so that p is never 0.
    tail = min(int((means <= 0).sum()), int((means >= 0).sum())) + 1
    return PairedDifference(float(differences.mean()), *_percentiles(means), min(1.0, 2 * tail / (samples + 1)))


def _percentiles(means: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _resampled_means(values: FloatArray, samples: int, seed: int) -> FloatArray:
    if not len(values):
        raise DataError("no values to take a confidence interval of, at least 1 user is needed")
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) > _MAX_DISTINCT:
        distinct, counts = _bin(np.asarray(values, dtype=np.float64))
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    step = max(1, _DRAWS_AT_ONCE // len(distinct))
    for start in range(0, samples, step):
        stop = min(start + step, samples)
        draws = rng.multinomial(len(values), counts / len(values), size=stop - start)
        means[start:stop] = draws @ distinct / len(values)
    return means


def _bin(values: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Gather a continuous quantity into fine bins, each represented by the mean of its values."""
    edges = np.linspace(values.min(), values.max(), _MAX_DISTINCT + 1)
    rows = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _MAX_DISTINCT - 1)
    counts = np.bincount(rows, minlength=_MAX_DISTINCT)
    sums = np.bincount(rows, weights=values, minlength=_MAX_DISTINCT)
    filled = counts > 0
    return sums[filled] / counts[filled], counts[filled]
