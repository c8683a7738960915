import pytest
import torch

from glintru_model.config import (
    GlintruConfig,
    GlintruRecommender,
    SasrecConfig,
    SasrecRecommender,
    TrainingConfig,
)
from glintru_model.data.batches import Batch, TrainingBatches
from glintru_model.models.registry import build_model
from glintru_model.training import shares
from glintru_model.training.cross_entropy import cross_entropy
from glintru_model.training.shares import backward_in_pieces

SIZES = {"embedding_dim": 8, "max_seq_len": 6, "dropout_rate": 0.0}
RECOMMENDERS = {
    "sasrec": SasrecRecommender(architecture=SasrecConfig(**SIZES), training=TrainingConfig()),
    "causal": GlintruRecommender(architecture=GlintruConfig(**SIZES), training=TrainingConfig()),
    "prefixes": GlintruRecommender(
        architecture=GlintruConfig(variant="paper", num_blocks=2, **SIZES), training=TrainingConfig()
    ),
}


@pytest.fixture
def histories(dataset_of):
    return dataset_of([[(3 * user + step) % 9 + 1 for step in range(4 + user % 6)] for user in range(13)], 9)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_pieces_leave_the_gradient_of_the_whole_batch(histories, name, monkeypatch):
    torch.manual_seed(0)
    model = build_model(RECOMMENDERS[name], histories.num_items).double()
    every = model.trains_every_position
    batches = TrainingBatches(histories, max_seq_len=6, batch_size=50, every_position=every, seed=0, device="cpu")
    [batch] = batches.epoch(1)
    seen = []

    def loss_of(piece):
        seen.append(piece.item_ids.numel())
        if every:
            hidden = model.prefixes(piece.item_ids, piece.lengths)[piece.rows, piece.positions]
        else:
            hidden = model.newest(piece.item_ids, piece.lengths)
        return cross_entropy(hidden, model.item_embedding.weight, piece.targets, piece.weights)

    def gradients():
        model.zero_grad()
        loss = backward_in_pieces(loss_of, batch)
        return loss, [parameter.grad.clone() for parameter in model.parameters()]

    whole = gradients()
    assert seen == [batch.item_ids.numel()]
    monkeypatch.setattr(shares, "CPU_POSITIONS", 20)
    torch.testing.assert_close(gradients(), whole, check_dtype=False)
    pieces = seen[1:]
    assert len(pieces) == -(-seen[0] // 20)
    assert max(pieces) < 20 + 6  # a sample is not cut


def test_a_batch_has_no_more_pieces_than_samples(histories, monkeypatch):
    monkeypatch.setattr(shares, "CPU_POSITIONS", 1)
    batches = TrainingBatches(histories, max_seq_len=6, batch_size=50, every_position=True, seed=0, device="cpu")
    [batch] = batches.epoch(1)
    weight = torch.ones((), requires_grad=True)
    lengths = []

    def loss_of(piece):
        lengths.append(len(piece.lengths))
        return weight * (piece.targets * piece.weights).sum()

    loss = backward_in_pieces(loss_of, batch)
    assert lengths == [1] * len(batch.lengths)
    assert loss.item() == pytest.approx(batch.targets.double().mean().item())
    assert weight.grad.item() == pytest.approx(loss.item())


def test_pieces_hold_samples_of_like_length(monkeypatch):
    lengths = torch.tensor([6, 1, 5, 2, 6, 1])
    batch = batch_of(lengths)
    monkeypatch.setattr(shares, "CPU_POSITIONS", 18)
    seen = pieces_of(batch)
    assert [piece.lengths.tolist() for piece in seen] == [[1, 1, 2], [5, 6, 6]]
    assert [piece.item_ids.shape for piece in seen] == [(3, 2), (3, 6)]
    targets = {tuple(row.tolist()) for row in torch.stack([batch.rows, batch.positions, batch.targets], 1)}
    order, found = torch.argsort(lengths, stable=True), set()
    for number, piece in enumerate(seen):
        whole_rows = order[3 * number + piece.rows]
        found |= {tuple(row.tolist()) for row in torch.stack([whole_rows, piece.positions, piece.targets], 1)}
        assert torch.equal(piece.item_ids[piece.rows, piece.positions], batch.item_ids[whole_rows, piece.positions])
    assert found == targets


def test_a_sample_with_one_target_keeps_it_in_its_piece(monkeypatch):
    lengths = torch.tensor([6, 1, 5, 2])
    last = lengths - 1
    batch, rows = batch_of(lengths), torch.arange(4)
    one_each = Batch(batch.item_ids, lengths, rows, last, batch.item_ids[rows, last], torch.ones(4))
    monkeypatch.setattr(shares, "CPU_POSITIONS", 12)
    seen = pieces_of(one_each)
    assert [piece.lengths.tolist() for piece in seen] == [[1, 2], [5, 6]]
    for piece in seen:
        newest = piece.item_ids[torch.arange(2), piece.lengths - 1]
        assert torch.equal(piece.targets, newest)  # here a sample's target is its last item, in the samples' order


def pieces_of(batch):
    seen = []

    def loss_of(piece):
        seen.append(piece)
        return piece.weights.sum().requires_grad_()

    backward_in_pieces(loss_of, batch)
    return seen


def batch_of(lengths):
    """A batch of samples of these lengths whose items and targets are all different."""
    places = torch.arange(int(lengths.max())) < lengths[:, None]
    rows, positions = places.nonzero().unbind(1)
    item_ids = torch.zeros(places.shape, dtype=torch.long)
    item_ids[rows, positions] = torch.arange(1, len(rows) + 1)
    return Batch(item_ids, lengths, rows, positions, 100 + torch.arange(len(rows)), torch.ones(len(rows)))
