"""A model of another catalogue, ranked by raw item ids."""

import numpy as np
import pyarrow as pa
import pytest

from glintru_model.config import EvaluationConfig
from glintru_model.data.sequences import Vocabulary
from glintru_model.evaluation.foreign import MISS, rank_by_own_vocabulary
from glintru_model.evaluation.ranking import rank_targets

OPEN, FILTERED = EvaluationConfig(filter_seen=False), EvaluationConfig(batch_size=7)


@pytest.mark.parametrize("config", [OPEN, FILTERED])
def test_own_dataset_gives_the_own_ranks(random_dataset, function_scorer, config):
    scorer = function_scorer(lambda history: np.random.default_rng(history).random(30).tolist())
    cases = random_dataset.cases("validation")
    found = rank_by_own_vocabulary(scorer, random_dataset.vocabulary, random_dataset, cases, config)
    expected = rank_targets(scorer, random_dataset, cases, filter_seen=config.filter_seen, batch_size=50).ranks
    assert found.tolist() == np.where(expected > 30, MISS, expected).tolist()


def test_other_catalogue_by_hand(make_dataset, function_scorer):
    # the dataset's items: a b c d e; the model knows z d c b (in this order), so a and e are unknown to it
    dataset = make_dataset(
        [[1, 2, 1, 3, 4, 5], [2, 1, 1, 5, 2], [1, 5, 3, 1], [5, 1, 4, 1], [4, 1, 4, 1]],
        item_ids=["a", "b", "c", "d", "e"],
    )
    own = Vocabulary(pa.array(["z", "d", "c", "b"]), np.array([9, 4, 4, 1]), np.array([0, 0, 0, 0]))
    scorer = function_scorer(lambda history: [0.9, 0.5, 0.5, 0.7])
    cases = dataset.cases("validation")
    assert [dataset.vocabulary.item_ids[int(t) - 1].as_py() for t in cases.targets] == ["d", "e", "c", "d", "d"]
    ranks = rank_by_own_vocabulary(scorer, own, dataset, cases, OPEN)
    # d after b, c: z and b above, c tied; e is unknown; c after unknown items alone: popularity, z above, d tied;
    # d after unknown items alone likewise; d after d
    assert ranks.tolist() == [4, MISS, 3, 3, 4]
    assert scorer.histories == [[4, 3], [2]]  # b, c and d by the model's own index, without the unknown a
    filtered = rank_by_own_vocabulary(scorer, own, dataset, cases, FILTERED)
    assert filtered.tolist() == [2, MISS, 3, 3, MISS]  # b and c are seen; the last target is seen itself
