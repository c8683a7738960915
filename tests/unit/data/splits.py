"""What the tests of the sequences share: reading them back, and the same split by pandas."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glintru_model.config import SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.sequences import SequenceDataset, load_sequences

LEAVE_ONE_OUT = SequencesConfig()

TEMPORAL = SequencesConfig(split="temporal", validation_quantile=0.6, test_quantile=0.8)


def build(directory: Path, config: SequencesConfig) -> SequenceDataset:
    build_sequences(directory, directory / "sequences", config)
    return load_sequences(directory / "sequences")


def histories(dataset: SequenceDataset) -> dict[Any, tuple[list[Any], list[Any], list[Any]]]:
    """Each user's (train, validation, test) events as the log's own item ids."""
    ids = [None, *dataset.vocabulary.item_ids.to_pylist()]
    found = {}
    for row, user in enumerate(dataset.user_ids.to_pylist()):
        events = [ids[i] for i in dataset.item_ids[dataset.offsets[row] : dataset.offsets[row + 1]]]
        train_end, validation_end = dataset.train_ends[row], dataset.validation_ends[row]
        found[user] = (events[:train_end], events[train_end:validation_end], events[validation_end:])
    return found


def core_of(log: pd.DataFrame, counted: pd.Series, k: int) -> tuple[set, set]:
    """k-core by pandas: users and items with k or more of the counted events among themselves."""
    core = log[counted]
    size = -1
    while size != len(core):
        size = len(core)
        users, items = core.user_id.value_counts(), core.item_id.value_counts()
        core = core[core.user_id.isin(users[users >= k].index) & core.item_id.isin(items[items >= k].index)]
    return set(core.user_id), set(core.item_id)


def reference(log: pd.DataFrame, config: SequencesConfig) -> tuple[dict[Any, tuple[list, list, list]], list[Any]]:
    """The same split by pandas and plain Python: (histories by user, vocabulary)."""
    log = log.reset_index(drop=True)
    if config.split == "temporal":
        times = np.sort(log.timestamp.to_numpy())
        cuts = [times[math.ceil(q * len(times)) - 1] for q in (config.validation_quantile, config.test_quantile)]
        log["part"] = [sum(time > cut for cut in cuts) for time in log.timestamp]
    if config.k_core > 1:
        counted = log.part == 0 if config.split == "temporal" else log.user_id == log.user_id
        users, items = core_of(log, counted, config.k_core)
        log = log[log.user_id.isin(users) & log.item_id.isin(items)].copy()
    ordered = log.sort_values(["user_id", "timestamp"], kind="stable")
    if config.split != "temporal":
        left = ordered.groupby("user_id").cumcount(ascending=False)
        length = ordered.groupby("user_id").item_id.transform("size")
        ordered["part"] = np.where(length < 3, 0, np.clip(2 - left, 0, 2))
    if config.max_history:
        from_newest = ordered[ordered.part == 0].groupby("user_id").cumcount(ascending=False)
        ordered = ordered.drop(from_newest[from_newest >= config.max_history].index)
    counts = ordered[ordered.part == 0].item_id.value_counts().to_dict()
    if config.split == "temporal":
        ordered = ordered[ordered.item_id.isin(counts)]
    vocabulary = sorted(set(ordered.item_id), key=lambda item: (-counts.get(item, 0), item))
    split = {
        user: tuple(events[events.part == part].item_id.tolist() for part in (0, 1, 2))
        for user, events in ordered.groupby("user_id")
    }
    return split, vocabulary
