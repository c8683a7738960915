"""Rank targets by a model whose catalogue is not the dataset's: by raw item ids, through the model's own vocabulary."""

from dataclasses import replace

import numpy as np

from glintru_model.config import EvaluationConfig
from glintru_model.data.sequences import EvaluationCases, SequenceDataset, Vocabulary
from glintru_model.evaluation.metrics import MISS, Int64Array
from glintru_model.evaluation.ranking import Scorer, rank_targets


def rank_by_own_vocabulary(
    scorer: Scorer, vocabulary: Vocabulary, dataset: SequenceDataset, cases: EvaluationCases, config: EvaluationConfig
) -> Int64Array:
    """Rank each target among the model's own items, as the served model would.

    Items of a history that the model does not know are skipped; where none is left, popularity ranks. A target that
    it does not know, or that the filter of seen items removes, is a miss.

    Args:
        scorer: the model, over its own indices.
        vocabulary: the model's.
        dataset: histories, under the dataset's indices.
        cases: questions about them.
        config: filter and batch size.

    Returns:
        1-based ranks in the order of the cases, (C,); `MISS` for a miss.

    Raises:
        TrainingError: a score is not finite.
    """
    own_index = np.concatenate([[0], vocabulary.index_of(dataset.vocabulary.item_ids)]).astype(np.int32)
    mapped = own_index[dataset.item_ids]
    known_before = np.concatenate([[0], np.cumsum(mapped > 0)])
    own = EvaluationCases(
        cases.user_rows,
        known_before[cases.history_starts],
        known_before[cases.history_ends],
        own_index[cases.targets],
    )
    histories = replace(
        dataset, item_ids=mapped[mapped > 0], offsets=known_before[dataset.offsets], vocabulary=vocabulary
    )
    is_known, has_history = own.targets > 0, own.history_ends > own.history_starts
    ranks = np.full(len(cases), MISS, dtype=np.int64)
    rows = np.flatnonzero(is_known & has_history)
    if len(rows):
        filter_seen, batch_size = config.filter_seen, config.batch_size
        found = rank_targets(scorer, histories, own.select(rows), filter_seen=filter_seen, batch_size=batch_size)
        ranks[rows] = found.ranks
    for row in np.flatnonzero(is_known & ~has_history):
        popularity = vocabulary.train_counts
        ranks[row] = (popularity >= popularity[own.targets[row] - 1]).sum()
    return ranks
