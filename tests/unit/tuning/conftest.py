"""A tiny dataset, and a stand-in for training whose best settings are known."""

import time

import numpy as np
import pyarrow as pa
import pytest
import torch

from glintru_model.config import SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.data.sequences import SequenceDataset, Vocabulary
from glintru_model.tracking import RunRef
from glintru_model.training.results import EpochResult, TrainingResult
from glintru_model.tuning import objective

NUM_USERS, LENGTH, NUM_ITEMS = 24, 7, 12


def make_dataset(dataset_hash="data-1"):
    """Every user walks round the catalogue, one item after the other."""
    steps = (np.arange(LENGTH) + np.arange(NUM_USERS)[:, None]) % NUM_ITEMS + 1
    counts = np.bincount(steps[:, :-2].ravel(), minlength=NUM_ITEMS + 1)[1:]
    return SequenceDataset(
        user_ids=pa.array(range(NUM_USERS)),
        offsets=np.arange(0, NUM_USERS * LENGTH + 1, LENGTH),
        item_ids=steps.ravel().astype(np.int32),
        train_ends=np.full(NUM_USERS, LENGTH - 2),
        validation_ends=np.full(NUM_USERS, LENGTH - 1),
        vocabulary=Vocabulary(pa.array(range(NUM_ITEMS)), counts, counts),
        manifest={"dataset_hash": dataset_hash},
    )


def make_recommender(**training):
    architecture = SasrecConfig(max_seq_len=6, embedding_dim=8, num_heads=1, num_blocks=1)
    return SasrecRecommender(architecture=architecture, training=TrainingConfig(batch_size=16, **training))


@pytest.fixture(scope="session")
def dataset():
    return make_dataset()


@pytest.fixture
def recommender():
    return make_recommender()


@pytest.fixture
def storage(tmp_path):
    return f"journal:{tmp_path / 'study' / 'journal.log'}"


def score(config, epoch):
    """The better, the nearer dropout is to 0.4 and the learning rate to 3e-3; it grows over 3 epochs."""
    distance = abs(config.architecture.dropout_rate - 0.4) + abs(np.log10(config.training.learning_rate / 3e-3)) / 3
    return float(max(0.0, 0.5 - distance / 2) * min(epoch, 3) / 3)


@pytest.fixture
def known_training(monkeypatch):
    """Replace training by the known scores; collects the configs that were trained."""
    trained = []

    def train(config, dataset, *, validate, on_epoch, title):
        trained.append(config)
        history = []
        for epoch in range(1, config.training.max_epochs + 1):
            time.sleep(0.001)
            history.append(EpochResult(epoch, 1.0, {"ndcg_at_10": score(config, epoch)}, 0.0, 1.0))
            on_epoch(history[-1])
        best = max(history, key=lambda result: result.validation["ndcg_at_10"])
        return torch.nn.Identity(), TrainingResult(best.epoch, best.validation, history, 0.0, 1, 1, "max_epochs")

    monkeypatch.setattr(objective, "train", train)
    return trained


@pytest.fixture(scope="session")
def other_dataset():
    return make_dataset("data-2")


@pytest.fixture(scope="session")
def untracked():
    return RunRef()


@pytest.fixture
def real_recommender():
    return make_recommender(device="cpu", num_threads=1)
