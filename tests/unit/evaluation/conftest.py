"""Small datasets and scorers for the evaluation tests."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch

from glintru_model.data.sequences import SequenceDataset, Vocabulary


class FunctionScorer:
    """Scores each history by a plain Python function: history -> one score for each item."""

    def __init__(self, score: Callable[[list[int]], list[float]]) -> None:
        self.score = score
        self.histories: list[list[int]] = []

    def score_histories(self, item_ids, starts, ends):
        histories = [item_ids[start:end].tolist() for start, end in zip(starts, ends, strict=True)]
        self.histories += histories
        return torch.tensor([[0.0, *self.score(history)] for history in histories])


@pytest.fixture(scope="session")
def function_scorer():
    return FunctionScorer


@pytest.fixture(scope="session")
def make_dataset():
    """Build a leave-one-out dataset from lists of item indices, one a user."""

    def make(histories, num_items=None, recent_counts=None, titles=None, item_ids=None):
        num_items = num_items or max(max(history) for history in histories)
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        train_ends = np.where(lengths >= 3, lengths - 2, lengths)
        trained = [item for history, end in zip(histories, train_ends, strict=True) for item in history[:end]]
        counts = np.bincount(trained, minlength=num_items + 1)[1:]
        vocabulary = Vocabulary(
            item_ids=pa.array(item_ids or [f"item-{index}" for index in range(1, num_items + 1)]),
            train_counts=counts,
            recent_train_counts=np.asarray(counts if recent_counts is None else recent_counts),
            titles=None if titles is None else pa.array(titles),
        )
        return SequenceDataset(
            user_ids=pa.array([f"user-{row}" for row in range(len(histories))]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            item_ids=np.array([item for history in histories for item in history], dtype=np.int32),
            train_ends=train_ends,
            validation_ends=np.where(lengths >= 3, lengths - 1, lengths),
            vocabulary=vocabulary,
            manifest={"num_users": len(histories), "num_items": num_items},
        )

    return make


@pytest.fixture(scope="session")
def random_dataset(make_dataset):
    """200 users, 30 items, histories of 3 to 40 events with repeats, popular items more often."""
    rng = np.random.default_rng(7)
    weights = 1 / np.arange(1, 31)
    histories = [(rng.choice(30, size=rng.integers(3, 41), p=weights / weights.sum()) + 1).tolist() for _ in range(200)]
    return make_dataset(histories, num_items=30)
