import numpy as np
import pytest
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender
from glintru_model.errors import DataError
from glintru_model.models import base, glintru
from glintru_model.models.glintru import GLINTRU
from glintru_model.models.registry import build_model
from glintru_model.models.scorer import ModelScorer, _together, pad_right

SIZES = {"embedding_dim": 8, "num_heads": 2, "max_seq_len": 6}
CONFIGS = [
    GlintruRecommender(architecture=GlintruConfig(**SIZES)),
    GlintruRecommender(architecture=GlintruConfig(variant="paper", **SIZES)),
    SasrecRecommender(architecture=SasrecConfig(**SIZES)),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_each_history_is_scored_by_its_newest_items_alone(config, monkeypatch):
    torch.manual_seed(0)
    model = build_model(config, 12).train()
    # several batches, in the order of length; one holds two histories
    monkeypatch.setattr(model, "batch_positions", lambda num_positions: 8)
    flat = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], dtype=np.int32)
    starts, ends = np.array([0, 4, 2, 0, 11]), np.array([12, 7, 3, 6, 12])
    scores = ModelScorer(model).score_histories(flat, starts, ends)
    assert model.training
    assert scores.shape == (5, 13)
    assert scores.dtype == torch.float32
    assert scores[:, 0].tolist() == [-torch.inf] * 5
    model.eval()
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        newest = torch.tensor(flat[max(start, end - 6) : end], dtype=torch.long)[None]
        expected = model.encode(newest, torch.tensor([newest.shape[1]]))[0, -1] @ model.item_embedding.weight.T
        torch.testing.assert_close(scores[row, 1:], expected[1:].detach(), rtol=1e-4, atol=1e-5)


def test_histories_of_like_length_are_encoded_together_up_to_so_many_positions():
    lengths = np.array([1, 9, 2, 3, 4, 4, 1])
    assert [rows.tolist() for rows in _together(lengths, 8)] == [[1], [4, 5], [3, 2], [0, 6]]
    assert not list(_together(lengths[:0], 8))


def test_scores_may_be_masked_in_place():
    scores = ModelScorer(build_model(CONFIGS[0], 3)).score_histories(
        np.array([1], dtype=np.int32), np.array([0]), np.array([1])
    )
    scores[0, 1] = -torch.inf
    assert scores[0, 1] == -torch.inf


def test_an_empty_history_is_refused():
    with pytest.raises(DataError, match="history 1 is empty"):
        ModelScorer(build_model(CONFIGS[0], 3)).score_histories(
            np.array([1, 2], dtype=np.int32), np.array([0, 1]), np.array([1, 1])
        )


def test_an_unknown_item_is_refused():
    with pytest.raises(DataError, match=r"item index 4, allowed: 1\.\.3"):
        ModelScorer(build_model(CONFIGS[0], 3)).score_histories(
            np.array([1, 4], dtype=np.int32), np.array([0]), np.array([2])
        )


def test_ranges_are_padded_on_the_right():
    item_ids, lengths = pad_right(np.array([5, 6, 7, 8], dtype=np.int32), np.array([0, 3, 1]), np.array([3, 4, 3]))
    assert item_ids.tolist() == [[5, 6, 7], [8, 0, 0], [6, 7, 0]]
    assert lengths.tolist() == [3, 1, 2]


def test_histories_are_encoded_in_large_batches_where_items_repeat(monkeypatch):
    batches, last_hidden = [], GLINTRU.last_hidden
    monkeypatch.setattr(
        GLINTRU, "last_hidden", lambda self, ids, n: batches.append(len(ids)) or last_hidden(self, ids, n)
    )
    monkeypatch.setattr(base, "CPU_BATCH_POSITIONS", 12)
    monkeypatch.setattr(glintru, "CPU_BATCH_POSITIONS_BY_ITEM", 24)
    flat, starts = np.arange(1, 7, dtype=np.int32), np.zeros(5, dtype=np.int64)
    for num_items, config in ((24, CONFIGS[0]), (25, CONFIGS[0]), (24, CONFIGS[1])):
        ModelScorer(build_model(config, num_items)).score_histories(flat, starts, starts + 6)
    assert batches == [4, 1, 2, 2, 1, 2, 2, 1]
