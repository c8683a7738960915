"""Batches padded to few shapes; the graphs themselves need a GPU (test_on_gpu)."""

import pytest
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.data.batches import TrainingBatches
from glintru_model.models.registry import build_model
from glintru_model.training.graphs import padded
from glintru_model.training.losses import build_loss

SIZES = {"embedding_dim": 8, "max_seq_len": 12, "dropout_rate": 0.0}
RECOMMENDERS = {
    "sasrec": SasrecRecommender(architecture=SasrecConfig(**SIZES)),
    "causal": GlintruRecommender(architecture=GlintruConfig(**SIZES)),
    "paper": GlintruRecommender(architecture=GlintruConfig(variant="paper", **SIZES)),
    "newest": GlintruRecommender(architecture=GlintruConfig(variant="paper", num_blocks=2, **SIZES)),
}


@pytest.fixture
def histories(dataset_of):
    return dataset_of([[(3 * user + step) % 9 + 1 for step in range(4 + user % 8)] for user in range(13)], 9)


def batches_of(histories, model, batch_size=5):
    every = model.trains_every_position
    return TrainingBatches(
        histories, max_seq_len=12, batch_size=batch_size, every_position=every, seed=0, device="cpu"
    ).epoch(1)


@pytest.mark.parametrize(("loss", "rtol"), [("cross_entropy", 1e-9), ("gbce", 1e-4)])  # gBCE computes in float32
@pytest.mark.parametrize("name", RECOMMENDERS)
def test_padding_changes_neither_loss_nor_gradient(histories, name, loss, rtol, monkeypatch):
    torch.manual_seed(0)
    model = build_model(RECOMMENDERS[name], histories.num_items).double()
    monkeypatch.setattr(torch, "randint", lambda low, high, shape, **_: torch.arange(shape[1]).expand(shape) % 9 + 1)
    loss_of = build_loss(TrainingConfig(loss=loss, num_negatives=4, label_smoothing=0.1), torch.ones(9).numpy(), "cpu")

    def gradients(batch):
        model.zero_grad()
        if model.trains_every_position:
            hidden = model.prefixes(batch.item_ids, batch.lengths)[batch.rows, batch.positions]
        else:
            hidden = model.newest(batch.item_ids, batch.lengths)
        value = loss_of(hidden, model.item_embedding.weight, batch.targets, batch.weights)
        value.backward()
        return [value.detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    for batch in batches_of(histories, model):
        whole = padded(batch, 12)
        assert whole.item_ids.numel() > batch.item_ids.numel()
        torch.testing.assert_close(gradients(whole), gradients(batch), rtol=rtol, atol=1e-3 * rtol)


@pytest.mark.parametrize(
    ("samples", "padded_samples"),
    [(1, 8), (8, 8), (9, 16), (63, 64), (65, 72), (127, 128), (129, 144), (250, 256), (7900, 8192)],
)
def test_sizes_are_padded_by_an_eighth_at_most_or_to_a_multiple_of_eight(dataset_of, samples, padded_samples):
    histories = dataset_of([[1, 2, 3, 4]] * samples, 9)
    model = build_model(RECOMMENDERS["sasrec"], 9)
    [batch] = batches_of(histories, model, batch_size=samples)
    found = padded(batch, 12)
    assert found.item_ids.shape == (padded_samples, 8)
    assert len(found.lengths) == len(found.targets) == padded_samples  # each has one target: 1, 2 are trained on
    assert found.weights.sum().item() == pytest.approx(1)


def test_no_batch_is_padded_beyond_the_longest_history_allowed(histories):
    model = build_model(RECOMMENDERS["sasrec"], 9)
    [batch] = batches_of(histories, model, batch_size=50)
    assert batch.item_ids.shape[1] == 8
    assert padded(batch, 8).item_ids.shape[1] == 8
    longer = batch._replace(item_ids=torch.nn.functional.pad(batch.item_ids, (0, 1)))
    assert padded(longer, 12).item_ids.shape[1] == 12
