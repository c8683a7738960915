"""Forward and backward pass on a GPU as CUDA graphs.

A step is hundreds of kernels so small that launching them one by one takes several times as long as they do. A graph
launches them at once, but is bound to the shapes that it was captured with; so batches are padded to few shapes.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from glintru_model.data.batches import Batch
from glintru_model.data.sequences import PADDING_ID
from glintru_model.models.base import SequentialRecommender
from glintru_model.progress import say
from glintru_model.training.shares import LossOf

_SIZES_PER_OCTAVE = 16  # a large size is padded by a sixteenth at most
_STEP = 4  # at least, of samples and targets; a step in time costs a recurrent model more than a shape does


class GraphedBackward:
    """The gradients of one model's batches, by a graph for each shape.

    The first batch of a shape goes without: libraries choose and load their kernels then, which a capture forbids.
    Graphs keep the memory of a step to themselves; where a GPU has no room for that, all batches go without.
    """

    def __init__(self) -> None:
        self._graphs: dict[tuple[int, ...], _Graph | None] = {}
        self._gradients: list[Tensor] = []
        self._pool = torch.cuda.graph_pool_handle()  # graphs run one at a time and share their memory
        self._has_room = True

    def __call__(self, model: SequentialRecommender, loss_of: LossOf, batch: Batch) -> Tensor:
        """Leave the gradient of a batch's loss in the model; returns the loss, valid until the next call."""
        if not self._gradients:
            self._gradients = _own_gradients(model)
        batch = padded(batch, model.max_seq_len)
        try:
            return self._run(loss_of, batch)
        except torch.OutOfMemoryError:
            if not self._graphs:
                raise
        say("GPU memory does not hold CUDA graphs beside the training: going on without them, which is slower")
        self._has_room = False
        self._graphs.clear()
        torch.cuda.empty_cache()
        return self._run(loss_of, batch)

    def _run(self, loss_of: LossOf, batch: Batch) -> Tensor:
        shape = (*batch.item_ids.shape, len(batch.targets))
        if not self._has_room or shape not in self._graphs:
            loss = _backward(loss_of, batch, self._gradients)
            if self._has_room:
                self._graphs[shape] = None
            return loss
        graph = self._graphs[shape]
        if graph is None:
            graph = self._graphs[shape] = _Graph(loss_of, batch, self._gradients, self._pool)
        return graph.run(batch)


class _Graph:
    def __init__(self, loss_of: LossOf, batch: Batch, gradients: list[Tensor], pool: Any) -> None:
        self._inputs = Batch(*(tensor.clone() for tensor in batch))
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._loss = _backward(loss_of, self._inputs, gradients)

    def run(self, batch: Batch) -> Tensor:
        for own, given in zip(self._inputs, batch, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._loss


def _own_gradients(model: torch.nn.Module) -> list[Tensor]:
    """Give each weight a gradient that stays where it is."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    return [weight.grad for weight in weights if weight.grad is not None]


def _backward(loss_of: LossOf, batch: Batch, gradients: list[Tensor]) -> Tensor:
    torch._foreach_zero_(gradients)
    loss = loss_of(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def padded(batch: Batch, max_seq_len: int) -> Batch:
    """Pad a batch to a shape that others have too, with samples of padding and targets of weight 0.

    Nothing changes by it, except where the release's padding takes part (`released_padding`).

    Args:
        batch: no longer than max_seq_len.
        max_seq_len: no batch is padded beyond.
    """
    (samples, length), targets = batch.item_ids.shape, len(batch.targets)
    more_samples, more_targets = _rounded_up(samples, _STEP) - samples, _rounded_up(targets, _STEP) - targets
    more_steps = min(_rounded_up(length, 1), max_seq_len) - length
    return Batch(
        item_ids=F.pad(batch.item_ids, (0, more_steps, 0, more_samples), value=PADDING_ID),
        lengths=F.pad(batch.lengths, (0, more_samples), value=1),
        rows=F.pad(batch.rows, (0, more_targets)),
        positions=F.pad(batch.positions, (0, more_targets)),
        targets=F.pad(batch.targets, (0, more_targets), value=PADDING_ID + 1),
        weights=F.pad(batch.weights, (0, more_targets)),
    )


def _rounded_up(size: int, least_step: int) -> int:
    step = max(least_step, (1 << size.bit_length() - 1) // _SIZES_PER_OCTAVE)
    return -(-size // step) * step
