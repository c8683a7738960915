"""A log whose best possible next-item ranking is known exactly.

Each item belongs to a cluster and has a popularity within it. The next item of a user is drawn with

    P(item | history) ∝ T[a, b, cluster(item)] * popularity(item), over the items that the user has not had yet,

where b is the cluster of the last item and a that of the one before. T is peaked: from b one of two clusters follows,
and a decides which of the two is the likely one. So popularity alone ranks badly, the last item says a good deal,
and the rest is in the last two together.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glintru_model.config import SyntheticConfig
from glintru_model.data.sequences import Int32Array, Int64Array, Vocabulary
from glintru_model.errors import DataError
from glintru_model.files import atomic_file
from glintru_model.layout import ORACLE_FILE

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_LIKELY_SHARE, _OTHER_SHARE = 0.75, 0.1  # of the two clusters that may follow; the rest goes to all clusters
_FIRST_DAY, _DAY = 1_700_000_000, 86_400  # Unix seconds
_CELLS_PER_BLOCK = 4_000_000  # users times items that are drawn for at once


@dataclass(frozen=True, eq=False)
class Oracle:
    """The generator's parameters (M items, K clusters).

    Attributes:
        item_ids: the log's ids, ascending, (M,).
        clusters: each item's cluster, (M,).
        popularity: each item's share within its cluster, (M,).
        start: probability of the first item's cluster, (K,).
        first_order: of the second's, given the first's, (K, K).
        second_order: of each later one's, given the two before it, (K, K, K).
    """

    item_ids: npt.NDArray[np.str_]
    clusters: Int64Array
    popularity: FloatArray
    start: FloatArray
    first_order: FloatArray
    second_order: FloatArray

    def probabilities(self, before_last: Int64Array, last: Int64Array, seen: BoolArray) -> FloatArray:
        """Probability of each item to come next.

        Args:
            before_last, last: the last two items' rows, -1 where the history is shorter, (B,).
            seen: items that the user has had, (B, M).

        Returns:
            (B, M); each row sums to 1, seen items have 0.
        """
        b, a = self.clusters[last], self.clusters[before_last]
        of_cluster = np.where((before_last >= 0)[:, None], self.second_order[a, b], self.first_order[b])
        of_cluster = np.where((last >= 0)[:, None], of_cluster, self.start)
        weights: FloatArray = of_cluster[:, self.clusters] * self.popularity
        weights[seen] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        return weights

    def save(self, path: Path) -> None:
        """Write the parameters as an `.npz` without pickled objects."""
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Oracle":
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, EOFError, ValueError, TypeError, KeyError, BadZipFile) as error:
            raise DataError(f"{path}: not a synthetic log's {ORACLE_FILE}: {error}") from error


class OracleScorer:
    """Scores items by the exact probability of coming next: no ranking can do better on the synthetic log."""

    def __init__(self, oracle: Oracle, vocabulary: Vocabulary) -> None:
        """Match the generator's parameters to a vocabulary.

        Raises:
            DataError: the parameters belong to another log.
        """
        self._oracle = oracle
        ids = np.asarray(vocabulary.item_ids.to_pylist(), dtype=np.str_)
        rows = np.searchsorted(oracle.item_ids, ids).clip(max=len(oracle.item_ids) - 1)
        strangers = ids[oracle.item_ids[rows] != ids]
        if len(strangers):
            raise DataError(f"{ORACLE_FILE}: it is of another log, item {str(strangers[0])!r} is unknown to it")
        self._row_of_index = np.concatenate([[-1], rows])

    @classmethod
    def load(cls, path: Path, vocabulary: Vocabulary) -> "OracleScorer":
        """Read the parameters from the file beside the interactions.

        Raises:
            DataError: the parameters cannot be read, or belong to another log.
        """
        return cls(Oracle.load(path), vocabulary)

    def score_histories(self, item_ids: Int32Array, starts: Int64Array, ends: Int64Array) -> "torch.Tensor":
        """Score every item as the next one.

        Args:
            item_ids: item indices of many histories, flat.
            starts, ends: each history's range, (B,).

        Returns:
            float32, (B, V + 1); column 0 (padding) is 0.
        """
        import torch

        lengths = ends - starts
        owners = np.repeat(np.arange(len(starts)), lengths)
        positions = np.arange(len(owners)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        seen = np.zeros((len(starts), len(self._oracle.item_ids)), dtype=np.bool_)
        seen[owners, self._row_of_index[item_ids[positions]]] = True
        last, before_last = (
            np.where(lengths >= back, self._row_of_index[item_ids[np.maximum(ends - back, 0)]], -1) for back in (1, 2)
        )
        probabilities = self._oracle.probabilities(before_last, last, seen)
        scores = np.zeros((len(starts), len(self._row_of_index)), dtype=np.float32)
        scores[:, 1:] = probabilities[:, self._row_of_index[1:]]
        return torch.from_numpy(scores)


def plant_structure(config: SyntheticConfig) -> Oracle:
    """Draw the generator's parameters."""
    rng = np.random.default_rng([config.seed, 0])
    num_items, num_clusters = config.num_items, config.num_clusters
    clusters = np.arange(num_items) % num_clusters
    popularity = np.zeros(num_items)
    for cluster in range(num_clusters):
        members = np.flatnonzero(clusters == cluster)
        # Zipf's law; the jitter keeps two items of different clusters from ever tying.
        weights = rng.lognormal(0, 0.3, len(members)) / (1 + rng.permutation(len(members)))
        popularity[members] = weights / weights.sum()
    successors = rng.permutation(num_clusters)
    either = np.stack([successors, np.roll(successors, -1)])  # the two clusters that may follow each cluster, (2, K)
    # Which of the two a cluster makes likely, one step later; a cluster follows two neighbours k, k + 1: they differ.
    prefers = np.arange(num_clusters) % 2
    rest = rng.dirichlet(np.full(num_clusters, 5.0), size=num_clusters)
    second_order = np.tile((1 - _LIKELY_SHARE - _OTHER_SHARE) * rest, (num_clusters, 1, 1))
    a, b = np.meshgrid(np.arange(num_clusters), np.arange(num_clusters), indexing="ij")
    second_order[a, b, either[prefers[a], b]] += _LIKELY_SHARE
    second_order[a, b, either[1 - prefers[a], b]] += _OTHER_SHARE
    width = max(4, len(str(num_items - 1)))
    return Oracle(
        item_ids=np.array([f"item-{number:0{width}d}" for number in range(num_items)]),
        clusters=clusters,
        popularity=popularity,
        start=np.full(num_clusters, 1 / num_clusters),
        first_order=second_order.mean(axis=0),
        second_order=second_order,
    )


def generate_log(config: SyntheticConfig) -> tuple[pa.Table, Oracle]:
    """Draw a log: columns user_id, item_id (strings) and timestamp (Unix seconds), in order of time.

    No user has an item twice, and no user has two events at one time. The same settings give the same log.
    """
    oracle = plant_structure(config)
    block = max(1, _CELLS_PER_BLOCK // config.num_items)
    users, items, times = [], [], []
    for number, first in enumerate(range(0, config.num_users, block)):
        rng = np.random.default_rng([config.seed, 1, number])
        rows = np.arange(first, min(first + block, config.num_users))
        lengths = rng.integers(config.min_length, config.max_length + 1, len(rows))
        drawn = _draw_histories(oracle, rng, len(rows), config.max_length)
        gaps = 60 + rng.exponential(_DAY / 2, drawn.shape).astype(np.int64)
        begins = _FIRST_DAY + rng.integers(0, 90 * _DAY, (len(rows), 1))
        taken = np.arange(config.max_length) < lengths[:, None]
        users.append(np.repeat(rows, lengths))
        items.append(drawn[taken])
        times.append((begins + gaps.cumsum(axis=1))[taken])
    timestamps = np.concatenate(times)
    in_time = np.argsort(timestamps, kind="stable")
    width = max(5, len(str(config.num_users)))
    user_ids = pa.array([f"user-{number + 1:0{width}d}" for number in range(config.num_users)])
    log = pa.table(
        {
            "user_id": user_ids.take(pa.array(np.concatenate(users)[in_time])),
            "item_id": pa.array(oracle.item_ids.tolist()).take(pa.array(np.concatenate(items)[in_time])),
            "timestamp": timestamps[in_time],
        }
    )
    return log, oracle


def _draw_histories(oracle: Oracle, rng: np.random.Generator, num_users: int, length: int) -> Int64Array:
    histories = np.empty((num_users, length), dtype=np.int64)
    seen = np.zeros((num_users, len(oracle.item_ids)), dtype=np.bool_)
    before_last = last = np.full(num_users, -1)
    for step in range(length):
        cumulative = oracle.probabilities(before_last, last, seen).cumsum(axis=1)
        # Scaled by the last sum (1 up to rounding), so that the draw always falls on an item that is left.
        draw = rng.random(num_users) * cumulative[:, -1]
        before_last, last = last, (cumulative <= draw[:, None]).sum(axis=1)
        histories[:, step] = last
        seen[np.arange(num_users), last] = True
    return histories
