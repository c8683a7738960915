"""Recommenders that a sequential model has to beat, each fitted on the training part only.

Shapes: B histories, V items, U users.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glintru_model.data.sequences import SequenceDataset
from glintru_model.evaluation.ranking import Int32Array, Int64Array, Scorer
from glintru_model.progress import Progress

_KNN_NEIGHBOURS = 100
_KNN_ROWS_AT_ONCE = 1024
_PRIOR_EVENTS = 1.0


class Popularity:
    """Scores an item by its number of training events."""

    def __init__(self, dataset: SequenceDataset) -> None:
        self._scores_V1 = _with_padding(dataset.vocabulary.train_counts)

    def score_histories(self, item_ids: Int32Array, starts: Int64Array, ends: Int64Array) -> Tensor:
        """Give every history the same scores."""
        return self._scores_V1.expand(len(starts), -1)


class RecentPopularity:
    """Scores an item by its events among the most recent tenth of the training events, then by all of them."""

    def __init__(self, dataset: SequenceDataset) -> None:
        vocabulary = dataset.vocabulary
        pairs = np.stack([vocabulary.recent_train_counts, vocabulary.train_counts], axis=1)
        _, places = np.unique(pairs, axis=0, return_inverse=True)
        self._scores_V1 = _with_padding(places.reshape(-1))

    def score_histories(self, item_ids: Int32Array, starts: Int64Array, ends: Int64Array) -> Tensor:
        """Give every history the same scores."""
        return self._scores_V1.expand(len(starts), -1)


class ItemKNN:
    """Sums, over the distinct items of the history, their cosine similarity to each candidate.

    Similarity is between the sets of training users; each item keeps its 100 nearest neighbours
    (Sarwar et al. 2001, binary feedback).
    """

    def __init__(self, dataset: SequenceDataset) -> None:
        from scipy import sparse

        users, items = training_events(dataset)
        shape = (dataset.num_users, dataset.num_items + 1)
        seen_UV1 = sparse.csr_matrix((np.ones(len(items), dtype=np.float32), (users, items)), shape=shape)
        seen_UV1.data[:] = 1  # a repeated item counts once
        users_of_item = np.asarray(seen_UV1.sum(axis=0)).ravel()
        scale = sparse.diags((1 / np.sqrt(np.maximum(users_of_item, 1))).astype(np.float32))
        self._similarity_V1V1 = _nearest_neighbours((seen_UV1 @ scale).tocsr())

    def score_histories(self, item_ids: Int32Array, starts: Int64Array, ends: Int64Array) -> Tensor:
        """Score by similarity to the whole history."""
        from scipy import sparse

        lengths = ends - starts
        rows = np.repeat(np.arange(len(starts)), lengths)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        items = item_ids[within + starts[rows]]
        shape = (len(starts), self._similarity_V1V1.shape[0])
        history_BV1 = sparse.csr_matrix((np.ones(len(items), dtype=np.float32), (rows, items)), shape=shape)
        history_BV1.data[:] = 1
        return torch.from_numpy((history_BV1 @ self._similarity_V1V1).toarray())


class MarkovChain:
    """Probability of each item after the history's last one, with one event's worth of popularity as prior."""

    def __init__(self, dataset: SequenceDataset) -> None:
        from scipy import sparse

        users, items = training_events(dataset)
        follows = users[1:] == users[:-1]
        pairs = (items[:-1][follows], items[1:][follows])
        size = dataset.num_items + 1
        ones = np.ones(len(pairs[0]), dtype=np.float32)
        self._counts_V1V1 = sparse.csr_matrix((ones, pairs), shape=(size, size))
        self._totals_V1 = np.asarray(self._counts_V1V1.sum(axis=1), dtype=np.float32).ravel()
        popularity = np.bincount(items, minlength=size).astype(np.float32)
        self._prior_V1 = _PRIOR_EVENTS * popularity / max(len(items), 1)

    def score_histories(self, item_ids: Int32Array, starts: Int64Array, ends: Int64Array) -> Tensor:
        """Score by the last item alone."""
        last = item_ids[ends - 1]
        totals = self._totals_V1[last][:, None] + np.float32(_PRIOR_EVENTS)
        return torch.from_numpy((self._counts_V1V1[last].toarray() + self._prior_V1) / totals)


BASELINES: dict[str, Callable[[SequenceDataset], Scorer]] = {
    "popularity": Popularity,
    "recent_popularity": RecentPopularity,
    "item_knn": ItemKNN,
    "markov_chain": MarkovChain,
}


def training_events(dataset: SequenceDataset) -> tuple[Int64Array, Int32Array]:
    """List the training part as (user row, item index) pairs, users in order, each user's events in time order."""
    lengths = np.diff(dataset.offsets)
    users = np.repeat(np.arange(dataset.num_users), lengths)
    within = np.arange(len(dataset.item_ids)) - dataset.offsets[users]
    in_training = within < dataset.train_ends[users]
    return users[in_training], dataset.item_ids[in_training]


def _with_padding(scores: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], scores]).astype(np.float32))


def _nearest_neighbours(normed_UV1: Any) -> Any:
    """Cosine similarities of the columns, each row cut to its largest ones, the diagonal left out.

    Done some rows at a time: the full product of a large catalogue would not fit in memory.
    """
    from scipy import sparse

    transposed = normed_UV1.T.tocsr()
    blocks = []
    progress = Progress("fit ItemKNN", transposed.shape[0], "items")
    for start in range(0, transposed.shape[0], _KNN_ROWS_AT_ONCE):
        if start:
            progress.update(start)
        block = (transposed[start : start + _KNN_ROWS_AT_ONCE] @ normed_UV1).tocoo()
        keep = block.col != block.row + start
        row, column, value = block.row[keep], block.col[keep], block.data[keep]
        order = np.lexsort((column, -value, row))  # ties by item index, so that a refit is the same
        row, column, value = row[order], column[order], value[order]
        first_of_row = np.searchsorted(row, np.arange(block.shape[0]))
        nearest = np.arange(len(row)) - first_of_row[row] < _KNN_NEIGHBOURS
        entries = (value[nearest], (row[nearest], column[nearest]))
        blocks.append(sparse.csr_matrix(entries, shape=block.shape, dtype=np.float32))
    return sparse.vstack(blocks, format="csr")
