"""Recommendations against the model's own ranking, and the requests that cannot be answered."""

import numpy as np
import pytest
import torch

from glintru_model.errors import DataError, InputError
from glintru_model.models.files import load_model
from glintru_model.serving import recommender as serving
from glintru_model.serving.recommender import Recommender

NUM_ITEMS = 30


@pytest.fixture(scope="module")
def recommender(glintru_dir):
    return Recommender.load(glintru_dir)


@pytest.fixture(scope="module")
def text_recommender(sasrec_dir):
    return Recommender.load(sasrec_dir)


def offline_scores(directory, indices):
    """Scores of items 1..V after a history of indices, straight from the network, no batch and no padding."""
    model, config = load_model(directory)
    newest = torch.tensor([indices[-config.architecture.max_seq_len :]])
    with torch.inference_mode():
        hidden = model.encode(newest, torch.tensor([newest.shape[1]]))[0, -1]
        return (model.item_embedding.weight[1:] @ hidden).numpy()


@pytest.mark.parametrize("history", [[5], [1, 2, 3], [7] * 3 + [2, 9], list(range(1, 25))])
def test_ranking_is_the_models_own(recommender, glintru_dir, history):
    scores = offline_scores(glintru_dir, history)
    (answer,) = recommender.recommend([[99 + i for i in history]], k=NUM_ITEMS, filter_seen=False)
    order = np.argsort(-scores)
    assert answer.item_ids == [100 + int(i) for i in order]
    np.testing.assert_allclose(answer.scores, scores[order], rtol=1e-5, atol=1e-6)
    assert (answer.num_unknown_items, answer.ranked_by) == (0, "model")


def test_seen_items_are_left_out_also_those_older_than_the_model_looks_back(recommender, glintru_dir):
    history = list(range(1, 25))  # max_seq_len is 8
    scores = offline_scores(glintru_dir, history)
    (answer,) = recommender.recommend([[99 + i for i in history]], k=NUM_ITEMS)
    unseen = [int(i) for i in np.argsort(-scores) if i >= 24]
    assert answer.item_ids == [100 + i for i in unseen]
    assert len(answer.scores) == NUM_ITEMS - 24


def test_excluded_items_are_left_out_and_unknown_exclusions_do_not_matter(recommender):
    (free,) = recommender.recommend([[100]], k=5)
    (answer,) = recommender.recommend([[100]], k=5, exclude=[free.item_ids[0], free.item_ids[2], 999_999])
    assert answer.item_ids[:3] == [free.item_ids[1], free.item_ids[3], free.item_ids[4]]


def test_unknown_items_are_skipped_and_counted(recommender):
    (clean,) = recommender.recommend([[101, 102]], k=5)
    (dirty,) = recommender.recommend([[7, 101, -1, 102, 2**70]], k=5)
    assert (dirty.item_ids, dirty.scores) == (clean.item_ids, clean.scores)
    assert (dirty.num_unknown_items, dirty.ranked_by) == (3, "model")
    assert recommender.recommend([np.array([7, 101, -1, 102])], k=5)[0].scores == clean.scores


@pytest.mark.parametrize(("history", "num_unknown"), [([], 0), ([1, 2, 3], 3)])
def test_popularity_answers_where_nothing_is_known_and_says_so(recommender, history, num_unknown):
    (answer,) = recommender.recommend([history], k=3, exclude=[101])
    assert answer.item_ids == [100, 102, 103]
    assert answer.scores == [30.0, 28.0, 27.0]
    assert (answer.num_unknown_items, answer.ranked_by) == (num_unknown, "popularity")


def test_batch_answers_as_one_by_one(recommender, monkeypatch):
    monkeypatch.setattr(recommender, "batch_size", 4)
    rng = np.random.default_rng(0)
    histories = [(100 + rng.integers(0, NUM_ITEMS + 3, size=n)).tolist() for n in rng.integers(0, 12, size=23)]
    batch = recommender.recommend(histories, k=4)
    single = [recommender.recommend([history], k=4)[0] for history in histories]
    assert [a.item_ids for a in batch] == [a.item_ids for a in single]
    assert [a.ranked_by for a in batch] == [a.ranked_by for a in single]
    assert recommender.recommend([], k=4) == []


def test_equal_scores_stand_by_popularity(recommender, monkeypatch):
    monkeypatch.setattr(recommender, "popularity_V1", torch.tensor([-torch.inf] + [1.0] * NUM_ITEMS))
    (answer,) = recommender.recommend([[]], k=NUM_ITEMS)
    assert answer.item_ids == list(range(100, 100 + NUM_ITEMS))


def test_everything_filtered_leaves_an_empty_answer(recommender):
    (answer,) = recommender.recommend([list(range(100, 100 + NUM_ITEMS))], k=5)
    assert (answer.item_ids, answer.scores, answer.ranked_by) == ([], [], "model")


def test_text_ids_come_back_as_text(text_recommender):
    (answer,) = text_recommender.recommend([["B001", "nothing"]], k=2, exclude=["B002"])
    assert all(isinstance(item, str) and item.startswith("B") for item in answer.item_ids)
    assert answer.num_unknown_items == 1


def test_very_long_history_is_answered(recommender):
    history = [100 + i % 20 for i in range(100_000)]
    (answer,) = recommender.recommend([history], k=NUM_ITEMS)
    assert sorted(answer.item_ids) == list(range(120, 130))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 31}, r"^k 31, allowed: 1\.\.30 \(the size of the catalogue\)$"),
        ({"k": 0}, "k 0, allowed"),
        ({"k": -3}, "k -3, allowed"),
        ({"k": True}, "k True, allowed"),
        ({"k": 2.5}, r"k 2\.5, allowed"),
        ({"k": "3"}, "k '3', allowed"),
        ({"filter_seen": "no"}, "filter_seen 'no', allowed: true or false"),
        ({"exclude": 100}, r"^exclude: found 100 \(int\), expected a list"),
        ({"exclude": ["100"]}, r"^exclude, position 0: found '100' \(str\), item ids of this model are whole numbers"),
        ({"histories": [[100], None]}, r"^history 1: found None \(NoneType\), expected a list"),
        ({"histories": ["100"]}, r"^history 0: found '100' \(str\)"),
        ({"histories": [[100, "x"]]}, r"^history 0, position 1: found 'x' \(str\)"),
        ({"histories": [[1.5]]}, r"position 0: found 1\.5 \(float\)"),
        ({"histories": [[True]]}, r"found True \(bool\)"),
        ({"histories": [[None]]}, r"found None \(NoneType\)"),
        ({"histories": [np.array(100)]}, r"^history 0: found array\(100\) \(ndarray\), expected a list"),
        ({"histories": [np.array([[100], [101]])]}, r"^history 0, position 0: found \[100\] \(list\)"),
        ({"histories": [np.array([100.0])]}, r"found 100\.0 \(float\)"),
    ],
)
def test_bad_request_is_one_line(recommender, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        recommender.recommend(**{"histories": [[100]], **arguments})
    assert "\n" not in str(caught.value)


def test_number_where_the_catalogue_has_text_is_refused(text_recommender):
    with pytest.raises(InputError, match=r"found 5 \(int\), item ids of this model are text"):
        text_recommender.recommend([[5]])


def test_kernels_are_compiled_before_the_first_request(recommender, monkeypatch):
    compiled = []
    monkeypatch.setattr(serving, "kernels", lambda: compiled.append(True))
    Recommender(recommender.model, recommender.vocabulary)
    assert compiled


def test_vocabulary_of_another_model_is_refused(recommender, text_recommender, glintru_dir):
    from glintru_model.data.sequences import Vocabulary

    model, _ = load_model(glintru_dir)
    vocabulary = recommender.vocabulary
    short = Vocabulary(vocabulary.item_ids[:5], vocabulary.train_counts[:5], vocabulary.recent_train_counts[:5])
    with pytest.raises(DataError, match="the model knows 30 items, its vocabulary 5"):
        Recommender(model, short)
