import pytest
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender
from glintru_model.errors import ConfigError, DataError
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.registry import build_model


class Echo(SequentialRecommender):
    """Its hidden vectors are the item embeddings."""

    def __init__(self):
        super().__init__(3, GlintruConfig(embedding_dim=4, max_seq_len=8), causal=True)

    def forward(self, item_ids_BL, lengths_B):
        return self.item_embedding(item_ids_BL)


@pytest.mark.parametrize(
    ("item_ids", "lengths", "message"),
    [
        ([[1, 2]], [0], r"history length 0, allowed: 1\.\.2"),
        ([[1, 2]], [3], r"history length 3, allowed: 1\.\.2"),
        ([[1, 4]], [2], r"item index 4, allowed: 1\.\.3"),
        ([[-1, 2]], [2], r"item index -1, allowed: 1\.\.3"),
        ([[1, 0]], [2], r"item index 0, allowed: 1\.\.3"),  # padding where an item should be
        ([[1, 9]], [1], r"item index 9, allowed: 1\.\.3"),  # nonsense where padding should be
        ([[1, 2]], [1, 1], r"shape \(1, 2\) with lengths of shape \(2,\), expected"),
    ],
)
def test_bad_input_is_refused_by_name(item_ids, lengths, message):
    with pytest.raises(DataError, match=message):
        Echo().encode(torch.tensor(item_ids), torch.tensor(lengths))


def test_an_empty_batch_is_refused():
    with pytest.raises(DataError, match=r"shape \(0, 2\)"):
        Echo().encode(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, dtype=torch.long))


def test_last_hidden_is_the_newest_item_of_each_history():
    model = Echo()
    last = model.last_hidden(torch.tensor([[1, 2, 3], [2, 0, 0]]), torch.tensor([3, 1]))
    assert torch.equal(last, model.item_embedding.weight[[3, 2]])


def test_scores_are_products_with_the_table_and_padding_is_never_a_candidate():
    model = Echo()
    with torch.no_grad():
        model.item_embedding.weight[:] = torch.tensor([[9.0, 9, 9, 9], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, -3]])
    scores = model.score(torch.tensor([[1.0, 10, 100, 1000]]))
    assert scores.tolist() == [[-torch.inf, 1, 20, -3000]]


def test_the_registry_builds_each_model_from_its_config():
    models = [build_model(config, 5) for config in (GlintruRecommender(), SasrecRecommender())]
    assert [type(model).__name__ for model in models] == ["GLINTRU", "SASRec"]
    assert all(model.item_embedding.weight.shape == (6, 64) for model in models)
    assert not any(model.item_embedding.weight[0].any() for model in models)


def test_a_catalogue_without_items_is_refused():
    with pytest.raises(ConfigError, match="num_items 0"):
        build_model(SasrecRecommender(architecture=SasrecConfig()), 0)
