"""Where histories are cut into training, validation and test."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from glintru_model.config import SequencesConfig, seconds_of
from glintru_model.data.coding import CodedLog, Int64Array
from glintru_model.data.selection import kth_smallest


@dataclass(frozen=True)
class Cuts:
    """The temporal split: an event at `validation` or before is training, after `test` it is test. Keys of times."""

    validation: int
    test: int


def find_cuts(log: CodedLog, config: SequencesConfig) -> Cuts | None:
    """Find the two cuts in time; None for leave-one-out.

    A quantile is of all events' times; an event at the very time of a cut falls before it. A date is the first moment
    of its part.
    """
    if config.split == "leave_one_out":
        return None
    if config.validation_start is not None and config.test_start is not None:
        return Cuts(*(_before(log, seconds_of(start)) for start in (config.validation_start, config.test_start)))
    ranks = [max(1, math.ceil(q * log.total)) for q in (config.validation_quantile, config.test_quantile)]
    return Cuts(*kth_smallest(log.time_keys, log.first, log.last, ranks))


def describe(log: CodedLog, config: SequencesConfig, cuts: Cuts | None) -> dict[str, Any]:
    """Return the split's name and settings, for the manifest."""
    if cuts is None:
        return {"split": config.split}
    by_date = config.validation_start is not None
    names = ("validation_start", "test_start") if by_date else ("validation_quantile", "test_quantile")
    return {
        "split": config.split,
        **{name: getattr(config, name) for name in names},
        "validation_cut": log.time_of(cuts.validation),
        "test_cut": log.time_of(cuts.test),
    }


def leave_one_out(lengths: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return where training and validation end: the last event is for test, the one before it for validation.

    A user with fewer than 3 events is all training.
    """
    spared = (lengths >= 3).astype(np.int64)
    return lengths - 2 * spared, lengths - spared


def _before(log: CodedLog, start: float) -> int:
    """Return the key just below a time."""
    return log.time_key(start if log.is_fractional else math.ceil(start)) - 1
