"""Metrics of what stands in the recommended lists, whatever the user then took: coverage, novelty, popularity bias.

Shapes: C cases, K items of a list, U users, V items.
"""

import numpy as np

from glintru_model.data.sequences import SequenceDataset
from glintru_model.evaluation.metrics import MAIN_CUTOFF, FloatArray, Int64Array
from glintru_model.evaluation.ranking import Int32Array


def list_metrics(recommended: Int32Array, targets: Int32Array, dataset: SequenceDataset) -> dict[str, FloatArray]:
    """Compute, for each case, how novel and how popular the recommended items are.

    Args:
        recommended: the items of each case's list, (C, K); 0 where it has none.
        targets: what the user took, (C,).
        dataset: counts the training events.

    Returns:
        `novelty_at_10`, the mean of -log2 of an item's share of the training events, in bits;
        `popularity_bias_at_10`, how many doublings more popular the recommended items are than the one that the user
        took (0 is unbiased). Each (C,).
    """
    counts_V1 = np.concatenate([[0], dataset.vocabulary.train_counts])
    bits_V1 = -np.log2(np.maximum(counts_V1, 1) / max(counts_V1.sum(), 1))
    doublings_V1 = np.log2(counts_V1 + 1.0)
    listed = recommended > 0
    listed_C = np.maximum(listed.sum(axis=1), 1)

    def mean(of_item: FloatArray) -> FloatArray:
        mean_C: FloatArray = np.where(listed, of_item[recommended], 0.0).sum(axis=1) / listed_C
        return mean_C

    return {
        f"novelty_at_{MAIN_CUTOFF}": mean(bits_V1),
        f"popularity_bias_at_{MAIN_CUTOFF}": mean(doublings_V1) - doublings_V1[targets],
    }


def covered_by_user(recommended: Int32Array, users: Int64Array, num_items: int) -> FloatArray:
    """Break catalogue coverage, the share of items that are in anyone's list, into one value a user.

    Coverage is no mean over users, and a plain resample of users leaves out a third of them and so always covers less.
    These are its jackknife pseudo-values, shifted to its mean: what only this user's lists hold, times the number of
    users. Their bootstrap interval lies around the coverage itself and is, if anything, too wide (Efron and Stein
    1981); its cost is that of counting.

    Args:
        recommended: the items of each case's list, (C, K); 0 where it has none.
        users: a number for the user of each case, (C,).
        num_items: V.

    Returns:
        (U,), with the coverage as their mean.
    """
    names, rows = np.unique(users, return_inverse=True)
    pairs = np.unique(np.repeat(rows, recommended.shape[1]) * np.int64(num_items + 1) + recommended.reshape(-1))
    owners, items = np.divmod(pairs, num_items + 1)
    owners, items = owners[items > 0], items[items > 0]
    lists_with_item = np.bincount(items, minlength=num_items + 1)
    alone_U = np.bincount(owners[lists_with_item[items] == 1], minlength=len(names)) / num_items
    coverage = float((lists_with_item > 0).sum() / num_items)
    values_U: FloatArray = coverage + (len(names) - 1) * (alone_U - alone_U.mean())
    return values_U
