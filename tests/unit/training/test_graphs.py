"""Batches padded to few shapes; the graphs themselves need a GPU (test_on_gpu)."""

import pytest
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.data.batches import Batch, TrainingBatches
from glintru_model.models.registry import build_model
from glintru_model.training import graphs
from glintru_model.training.cross_entropy import cross_entropy
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
    [(1, 4), (8, 8), (9, 12), (127, 128), (129, 136), (250, 256), (257, 272), (7900, 7936)],
)
def test_samples_are_padded_by_a_sixteenth_at_most_or_to_a_multiple_of_four(dataset_of, samples, padded_samples):
    histories = dataset_of([[1, 2, 3, 4]] * samples, 9)
    model = build_model(RECOMMENDERS["sasrec"], 9)
    [batch] = batches_of(histories, model, batch_size=samples)
    found = padded(batch, 12)
    assert found.item_ids.shape == (padded_samples, 1)
    assert len(found.lengths) == len(found.targets) == padded_samples  # each has one target: 1, 2 are trained on
    assert found.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("length", "padded_length"), [(1, 1), (7, 7), (31, 31), (33, 34), (65, 68), (129, 136)])
def test_short_histories_are_padded_little_and_none_beyond_the_longest_allowed(length, padded_length):
    item_ids, one = torch.ones(8, length, dtype=torch.long), torch.ones(8, dtype=torch.long)
    batch = Batch(item_ids, one * length, one.cumsum(0) - 1, one - 1, one, one / 8)
    assert padded(batch, 200).item_ids.shape == (8, padded_length)
    assert padded(batch, length).item_ids.shape == (8, length)


def test_half_of_short_histories_is_not_padding(dataset_of):
    """As lengths are on the Amazon logs: most have a few inputs."""
    histories = dataset_of([[1, 2, 3, 4, 5, 6, 7, 8][: 5 + user % 4] for user in range(2000)], 9)
    batches = TrainingBatches(histories, max_seq_len=50, batch_size=100, every_position=True, seed=0, device="cpu")
    whole = [padded(batch, 50) for batch in batches.epoch(1)]
    assert sum(batch.item_ids.numel() for batch in whole) < 1.1 * batches.num_targets


def test_without_room_for_graphs_batches_go_without(histories, monkeypatch):
    model = build_model(RECOMMENDERS["causal"], 9)
    captures = []

    class NoRoom:
        def __init__(self, *_):
            captures.append(1)
            raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(graphs, "_Graph", NoRoom)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    backward = graphs.GraphedBackward()
    [batch] = batches_of(histories, model, batch_size=50)

    def loss_of(batch):
        hidden = model.prefixes(batch.item_ids, batch.lengths)[batch.rows, batch.positions]
        return cross_entropy(hidden, model.item_embedding.weight, batch.targets, batch.weights)

    losses = [backward(model, loss_of, batch).item() for _ in range(4)]
    assert losses == pytest.approx([losses[0]] * 4)
    assert captures == [1]

    def no_memory(batch):
        raise torch.OutOfMemoryError("no memory at all")

    with pytest.raises(torch.OutOfMemoryError, match="at all"):
        backward(model, no_memory, batch)
