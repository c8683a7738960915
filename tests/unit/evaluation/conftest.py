"""Small datasets and scorers for the evaluation tests."""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
import torch

from glintru_model.config import EvaluationConfig
from glintru_model.data.sequences import SequenceDataset, Vocabulary
from glintru_model.evaluation.compare import compare
from glintru_model.evaluation.evaluate import evaluate_model
from glintru_model.evaluation.report import write_run_report
from glintru_model.training.results import EpochResult, TrainingResult


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


EVIL = "<script>alert(1)</script>"
DATA_REPORT = {
    "steps": [
        {"step": "read", "num_users": 95, "num_items": 31, "num_interactions": 1000},
        {"step": "5-core", "num_users": 80, "num_items": 30, "num_interactions": 900},
    ],
    "settings": {"k_core": 5, "columns": {"user_id": EVIL}},
    "warnings": ["fewer items than expected"],
    "sequence_lengths": {"histogram": [{"from": 5, "to": 9, "count": 61}, {"from": 10, "to": 40, "count": 19}]},
    "item_popularity": {"by_rank": [{"rank": 1, "count": 80}, {"rank": 30, "count": 3}]},
}
MANIFEST = {
    "source": EVIL,
    "split": "leave_one_out",
    "dataset_hash": "0123456789abcdef",
    **{"num_users": 80, "num_items": 30, "num_interactions": 900},
    **{"num_train": 740, "num_validation": 80, "num_test": 80},
}
CONFIG = EvaluationConfig(cutoffs=(5, 10), bootstrap_samples=100)


def training_of(best_epoch=2):
    epochs = [EpochResult(e, 6.0 - e, {"ndcg_at_10": 0.1 + 0.01 * (e == best_epoch)}, 2.0, 1000.0) for e in (1, 2, 3)]
    return asdict(TrainingResult(best_epoch, {"ndcg_at_10": 0.11}, epochs, 6.5, 12345, 50 * 2**20, "patience"))


@pytest.fixture(scope="session")
def training():
    return training_of(2)


@pytest.fixture(scope="session")
def evaluations(make_dataset, function_scorer, tmp_path_factory):
    rng = np.random.default_rng(0)
    ids = [EVIL, *(f"item-{index}" for index in range(2, 31))]
    histories = [[1, *(rng.integers(0, 30, size=rng.integers(3, 20)) + 1).tolist()] for _ in range(80)]
    dataset = make_dataset(histories, num_items=30, item_ids=ids)
    found = {}
    for name, salt in (("glintru", 1), ("sasrec", 2)):
        scorer = function_scorer(lambda history, salt=salt: np.random.default_rng([salt, *history]).random(30).tolist())
        found[name] = tmp_path_factory.mktemp(name)
        evaluate_model(scorer, dataset, "test", CONFIG).write(found[name])
    return found


@pytest.fixture(scope="session")
def run_report_path(evaluations, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "report.html"
    trials = [
        {"number": 0, "state": "complete", "value": 0.08, "epochs": 3, "seconds": 1.5, "learning_rate": 0.002},
        {"number": 1, "state": "pruned", "value": 0.05, "epochs": 1, "seconds": 0.5, "learning_rate": 0.01},
    ]
    write_run_report(
        path,
        data_report=DATA_REPORT,
        manifest=MANIFEST,
        ceiling={"ndcg_at_5": 0.8, "ndcg_at_10": 0.9},
        studies={"glintru": trials, "sasrec": trials},
        evaluations=evaluations,
        trainings={"glintru": training_of(2), "sasrec": training_of(3)},
        versions=[
            {"model": "glintru", "name": "glintru", "version": "4", "alias": "champion", "reason": EVIL},
            {"model": "sasrec", "name": "sasrec", "version": "9", "alias": "challenger", "reason": "below version 8"},
        ],
        comparison=compare(evaluations),
    )
    return path
