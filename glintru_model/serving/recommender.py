"""Item-id histories in, top-k item ids and scores out: what every way of serving a model shares.

Shapes: B histories, V items in the catalogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from glintru_model.data.sequences import Vocabulary, load_vocabulary
from glintru_model.errors import DataError, InputError
from glintru_model.layout import VOCABULARY_FILE
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.best import best_first
from glintru_model.models.cpu_kernels.compiled import kernels
from glintru_model.models.files import load_model
from glintru_model.models.scorer import ModelScorer

ItemId = int | str
Int32Array = npt.NDArray[np.int32]
_MAX_SCORES = 2**24  # scores of a batch held at once: 64 MB


@dataclass(frozen=True)
class Recommendation:
    """The answer to one history.

    Attributes:
        item_ids: best first; fewer than k where filtering left fewer.
        scores: one per item; training counts where popularity answered.
        num_unknown_items: items of the history that the catalogue does not have; they were skipped.
        ranked_by: `popularity` where nothing known was left of the history.
    """

    item_ids: list[ItemId]
    scores: list[float]
    num_unknown_items: int
    ranked_by: Literal["model", "popularity"]


@dataclass(frozen=True, eq=False)
class Top:
    """The best items of a batch.

    Attributes:
        items: indices, best first, (B, k); 0 where filtering left fewer.
        scores: theirs, (B, k).
        by_model: false where popularity answered, (B,).
    """

    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    by_model: npt.NDArray[np.bool_]


class Recommender:
    """A trained model with its catalogue.

    Attributes:
        model: in evaluation mode.
        vocabulary: its items.
        integer_ids: whether item ids are whole numbers (else text).
        popularity_V1: what ranks where nothing of a history is known, (V + 1,).
        batch_size: histories that are scored at once.
    """

    def __init__(self, model: SequentialRecommender, vocabulary: Vocabulary) -> None:
        if model.num_items != vocabulary.num_items:
            raise DataError(f"the model knows {model.num_items} items, its vocabulary {vocabulary.num_items}")
        self.vocabulary = vocabulary
        self.integer_ids = pa.types.is_integer(vocabulary.item_ids.type)
        self.model = model
        self.batch_size = max(1, min(256, _MAX_SCORES // (vocabulary.num_items + 1)))
        self._scorer = ModelScorer(model)
        if model.item_embedding.weight.device.type == "cpu":
            kernels()  # compiled now, if never before, and not while a request waits
        # Arrow's own look-up would hash the whole catalogue anew for every request
        self._indices_by_id = {item_id: row + 1 for row, item_id in enumerate(vocabulary.item_ids.to_pylist())}
        popularity = np.concatenate([[-np.inf], vocabulary.train_counts]).astype(np.float32)
        self.popularity_V1 = torch.from_numpy(popularity).to(model.item_embedding.weight.device)

    @classmethod
    def load(cls, directory: Path, device: torch.device | str = "cpu") -> "Recommender":
        """Read a model's folder.

        Raises:
            DataError: a file is missing or does not fit the others.
        """
        model, _ = load_model(directory, device)
        return cls(model, load_vocabulary(directory / VOCABULARY_FILE))

    def recommend(
        self,
        histories: Sequence[Sequence[ItemId]],
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Sequence[ItemId] = (),
    ) -> list[Recommendation]:
        """Rank the catalogue for each history.

        Args:
            histories: ids as the log has them, oldest first; a history may be empty or hold unknown items.
            k: items wanted, 1..V.
            filter_seen: leave out every item of the history, however long it is.
            exclude: items to leave out of every answer.

        Raises:
            InputError: one line that names what cannot be used.
        """
        self.check(k, filter_seen)
        excluded = self.indices(exclude, "exclude")
        known = [self.indices(history, f"history {row}") for row, history in enumerate(histories)]
        answers: list[Recommendation] = []
        for begin in range(0, len(known), self.batch_size):
            batch = known[begin : begin + self.batch_size]
            top = self.top(batch, int(k), filter_seen=bool(filter_seen), excluded=excluded)
            answers += [self.answer(top, row, indices) for row, indices in enumerate(batch)]
        return answers

    def check(self, k: Any, filter_seen: Any) -> None:
        """Refuse a number of items, or a filter, that makes no sense for this catalogue.

        Raises:
            InputError: it does not.
        """
        num_items = self.vocabulary.num_items
        if not _is_a(Integral, k) or not 1 <= k <= num_items:
            raise InputError(f"k {k!r}, allowed: 1..{num_items} (the size of the catalogue)")
        if not _is_bool(filter_seen):
            raise InputError(f"filter_seen {filter_seen!r}, allowed: true or false")

    def top(self, histories: Sequence[Int32Array], k: int, *, filter_seen: bool, excluded: Int32Array) -> Top:
        """Rank the catalogue for a batch of histories of item indices, 0 where an item is unknown."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        flat = np.concatenate(histories) if len(histories) else np.empty(0, dtype=np.int32)
        known = flat > 0
        rows = np.repeat(np.arange(len(lengths)), lengths)
        num_known = np.bincount(rows[known], minlength=len(lengths))
        scores_BV1 = self._scores(flat[known], num_known)
        scores_BV1[:, torch.from_numpy(excluded[excluded > 0]).long()] = -torch.inf
        if filter_seen:
            scores_BV1[torch.from_numpy(rows), torch.from_numpy(flat).long()] = -torch.inf
        items_BK, scores_BK = best_first(scores_BV1, k)
        return Top(items_BK.cpu().numpy(), scores_BK.cpu().numpy(), num_known > 0)

    def answer(self, top: Top, row: int, indices: Int32Array) -> Recommendation:
        """Put one row of a batch into the log's own ids."""
        found = top.items[row] > 0
        return Recommendation(
            item_ids=self.vocabulary.item_ids.take(pa.array(top.items[row][found] - 1)).to_pylist(),
            scores=top.scores[row][found].tolist(),
            num_unknown_items=int((indices == 0).sum()),
            ranked_by="model" if top.by_model[row] else "popularity",
        )

    def _scores(self, flat: Int32Array, lengths: npt.NDArray[np.int64]) -> Tensor:
        scores_BV1 = self.popularity_V1.repeat(len(lengths), 1)
        rows = np.flatnonzero(lengths)
        if len(rows):
            ends = np.cumsum(lengths)
            by_model = self._scorer.score_histories(flat, (ends - lengths)[rows], ends[rows])
            scores_BV1[torch.from_numpy(rows).to(scores_BV1.device)] = by_model
        return scores_BV1

    def indices(self, ids: Any, what: str) -> Int32Array:
        """Map ids to indices 1..V, 0 where unknown.

        Raises:
            InputError: this is no list, or an id is not of the catalogue's type.
        """
        listed = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if not isinstance(listed, list | tuple):
            raise InputError(f"{what}: found {_shown(ids)}, expected a list of item ids")
        wanted: type = Integral if self.integer_ids else str
        if not all(issubclass(kind, wanted) and kind is not bool for kind in set(map(type, listed))):
            expected = "whole numbers" if self.integer_ids else "text"
            position = next(at for at, item_id in enumerate(listed) if not _is_a(wanted, item_id))
            found = _shown(listed[position])
            raise InputError(f"{what}, position {position}: found {found}, item ids of this model are {expected}")
        index_of = self._indices_by_id.get
        return np.array([index_of(item_id, 0) for item_id in listed], dtype=np.int32)


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:40]}{'...' if len(text) > 40 else ''} ({type(value).__name__})"
