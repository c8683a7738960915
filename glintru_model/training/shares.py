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
    for number in range(pieces):
        loss = loss_of(share_of(batch, number, pieces) if pieces > 1 else batch)
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
    lengths = batch.lengths[rank::count]
    longest = int(lengths.max()) if len(lengths) else 0
    is_mine_N = batch.rows % count == rank
    return Batch(
        item_ids=batch.item_ids[rank::count, :longest],
        lengths=lengths,
        rows=batch.rows[is_mine_N] // count,
        positions=batch.positions[is_mine_N],
        targets=batch.targets[is_mine_N],
        weights=batch.weights[is_mine_N],
    )
