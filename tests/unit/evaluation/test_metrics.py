import numpy as np
import pytest

from glintru_model.errors import DataError
from glintru_model.evaluation.metrics import metrics_from_ranks

# rank, NDCG@10, recall@10, reciprocal rank@10, worked by hand: 1/log2(rank + 1), 1, 1/rank; nothing beyond rank 10.
TABLE = [
    (1, 1.0, 1, 1.0),
    (2, 0.6309297535714574, 1, 0.5),
    (3, 0.5, 1, 1 / 3),
    (7, 1 / 3, 1, 1 / 7),
    (10, 0.2890648263178879, 1, 0.1),
    (11, 0.0, 0, 0.0),
    (1683, 0.0, 0, 0.0),
]


@pytest.mark.parametrize(("rank", "ndcg", "recall", "mrr"), TABLE)
def test_each_metric_follows_the_hand_worked_table(rank, ndcg, recall, mrr):
    values = metrics_from_ranks(np.array([rank]), [10])
    assert values["ndcg_at_10"] == pytest.approx([ndcg], abs=1e-12)
    assert values["recall_at_10"] == pytest.approx([recall])
    assert values["mrr_at_10"] == pytest.approx([mrr], abs=1e-12)


def test_cutoff_bounds_every_metric():
    values = metrics_from_ranks(np.array([1, 5, 6]), [1, 5])
    assert sorted(values) == ["mrr_at_1", "mrr_at_5", "ndcg_at_1", "ndcg_at_5", "recall_at_1", "recall_at_5"]
    assert values["recall_at_1"].tolist() == [1, 0, 0]
    assert values["recall_at_5"].tolist() == [1, 1, 0]
    assert values["mrr_at_5"].tolist() == [1, 0.2, 0]


def test_rank_below_one_is_refused():
    with pytest.raises(DataError, match="rank 0 found, ranks begin at 1"):
        metrics_from_ranks(np.array([3, 0]), [10])
