"""Shares of a batch, whose gradients add up to that of the whole: for processes side by side, for pieces in turn."""

from collections.abc import Callable

import torch
from torch import Tensor

from glintru_model.data.batches import Batch

LossOf = Callable[[Batch], Tensor]  # the weighed sum over a batch's targets

CPU_POSITIONS = 1 << 13  # of a piece: what a pass holds of them fills caches, and memory only so far


def backward_in_pieces(loss_of: LossOf, batch: Batch) -> Tensor:
    """Add the gradient of a batch's loss to the model's; returns the loss.

    On the CPU a large batch goes piece by piece, so that memory does not grow with its size. A GPU takes it whole.

    Args:
        loss_of: the loss of some samples.
        batch: maybe a share without any sample.
    """
    total = batch.item_ids.new_zeros((), dtype=torch.float32)
    wanted = -(-batch.item_ids.numel() // CPU_POSITIONS) if batch.item_ids.device.type == "cpu" else 1
    pieces = min(wanted, len(batch.lengths))
    by_length = torch.argsort(batch.lengths, stable=True) if pieces > 1 else None  # so that pieces pad the less
    for number in range(pieces):
        loss = loss_of(batch if by_length is None else _part_of(batch, by_length.tensor_split(pieces)[number]))
        loss.backward()  # type: ignore[no-untyped-call]
        total = total + loss.detach()
    return total


def share_of(batch: Batch, rank: int, count: int) -> Batch:
    """Return every `count`-th sample of a batch, padded no further than the longest of them; maybe none.

    Args:
        batch: its samples are of like length, so every share is about as much work.
        rank: of the process, from 0.
        count: of processes.
    """
    return _part_of(batch, torch.arange(len(batch.lengths), device=batch.lengths.device)[rank::count])


def _part_of(batch: Batch, samples: Tensor) -> Batch:
    lengths = batch.lengths[samples]
    longest = int(lengths.max()) if len(lengths) else 0
    place_B = torch.full_like(batch.lengths, -1).index_copy_(0, samples, torch.arange(len(samples)).to(lengths))
    row_N = place_B[batch.rows]
    mine_N = (row_N >= 0).nonzero()[:, 0]
    mine_N = mine_N[torch.argsort(row_N[mine_N], stable=True)]  # a model with one target a sample goes by their order
    return Batch(
        item_ids=batch.item_ids[samples, :longest],
        lengths=lengths,
        rows=row_N[mine_N],
        positions=batch.positions[mine_N],
        targets=batch.targets[mine_N],
        weights=batch.weights[mine_N],
    )
