"""Training batches, gathered on the device from the training part that lies there whole.

Shapes: U users, W samples, B batch, L length, N targets.

A sample is a range of a user's training events. For a model that is trained at every position it is a window: inputs
are all its events but the last, targets all but the first. A history longer than max_seq_len is cut into
consecutive windows, the full ones at its newest end, so that every training event but the user's first is a target
exactly once; windows share one event and no context, which costs nothing twice. For a model trained at the last
position alone, every event but the first ends a sample of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glintru_model.data.sequences import PADDING_ID, SequenceDataset
from glintru_model.errors import DataError

LENGTH_JITTER = 0.1  # samples whose lengths differ by less than this share may meet in a batch


@dataclass(frozen=True)
class Batch:
    """One step's samples on the device.

    Attributes:
        item_ids: inputs, padded on the right, (B, L).
        lengths: inputs of each sample, (B,).
        rows, positions: where in (B, L) each target is to be predicted, (N,).
        targets: item indices, (N,).
    """

    item_ids: Tensor
    lengths: Tensor
    rows: Tensor
    positions: Tensor
    targets: Tensor


class TrainingBatches:
    """Cuts an epoch into batches of samples of like length, each with about as many targets as the others.

    With equal numbers of targets every target weighs the same, whatever the length of its history. Batches and their
    order depend on the seed and the epoch alone.

    Attributes:
        num_targets: prediction terms of an epoch.
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        *,
        max_seq_len: int,
        batch_size: int,
        every_position: bool,
        seed: int,
        device: torch.device | str,
    ) -> None:
        """Cut the samples.

        Args:
            dataset: its training part alone is read.
            max_seq_len: inputs of a sample, at most.
            batch_size: samples of a batch, on average.
            every_position: one target a position, or one a sample.
            seed: of the batches' order.
            device: where batches are gathered.

        Raises:
            DataError: no user has two training events, or an item lies outside the vocabulary.
        """
        self._starts_W, self._lengths_W = _cut(dataset.offsets[:-1], dataset.train_ends, max_seq_len, every_position)
        if not len(self._starts_W):
            raise DataError(f"none of {dataset.num_users} users has 2 training events, nothing to train on")
        items = dataset.item_ids
        smallest, largest = int(items.min()), int(items.max())
        if smallest <= PADDING_ID or largest > dataset.num_items:
            found = smallest if smallest <= PADDING_ID else largest
            raise DataError(f"training sequences: item index {found}, allowed: 1..{dataset.num_items}")
        self._targets_W = self._lengths_W if every_position else np.ones_like(self._lengths_W)
        self._every_position, self._seed = every_position, seed
        self._items_N = torch.from_numpy(np.array(items)).to(device)
        self._targets_per_batch = batch_size * float(self._targets_W.mean())
        self.num_targets = int(self._targets_W.sum())

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        for samples in self.plan(epoch):
            yield self._gather(self._starts_W[samples], self._lengths_W[samples])

    def plan(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Return the samples of each batch of an epoch, in the order of training."""
        random = np.random.default_rng((self._seed, epoch))
        jittered = self._lengths_W * (1 + LENGTH_JITTER * random.random(len(self._lengths_W)))
        by_length = np.argsort(jittered, kind="stable")
        seen = np.cumsum(self._targets_W[by_length])
        num_batches = max(1, round(self.num_targets / self._targets_per_batch))
        bounds = np.searchsorted(seen, self.num_targets / num_batches * np.arange(1, num_batches), side="right")
        batches = [samples for samples in np.split(by_length, bounds) if len(samples)]
        return [batches[i] for i in random.permutation(len(batches))]

    def padding_share(self, epoch: int) -> float:
        """Return which share of an epoch's positions is padding."""
        positions = sum(len(samples) * int(self._lengths_W[samples].max()) for samples in self.plan(epoch))
        return 1 - float(self._lengths_W.sum()) / positions

    def _gather(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Batch:
        device = self._items_N.device
        starts_B, lengths_B = torch.from_numpy(starts).to(device), torch.from_numpy(lengths).to(device)
        steps_L = torch.arange(int(lengths.max()), device=device)
        is_item_BL = steps_L < lengths_B[:, None]
        places_BL = torch.where(is_item_BL, starts_B[:, None] + steps_L, 0)
        item_ids_BL = torch.where(is_item_BL, self._items_N[places_BL], PADDING_ID)
        if self._every_position:
            rows_N, positions_N = is_item_BL.nonzero(as_tuple=True)
        else:
            rows_N, positions_N = torch.arange(len(starts), device=device), lengths_B - 1
        targets_N = self._items_N[starts_B[rows_N] + positions_N + 1]
        return Batch(item_ids_BL.long(), lengths_B, rows_N, positions_N, targets_N.long())


def _cut(
    offsets_U: npt.NDArray[np.int64], train_ends_U: npt.NDArray[np.int64], max_seq_len: int, every_position: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each sample's start in the flat array and its number of inputs, (W,) both."""
    inputs_U = np.maximum(train_ends_U - 1, 0)
    samples_U = -(-inputs_U // max_seq_len) if every_position else inputs_U
    users_W = np.repeat(np.arange(len(samples_U)), samples_U)
    from_newest_W = np.repeat(np.cumsum(samples_U), samples_U) - 1 - np.arange(len(users_W))
    ends_W = inputs_U[users_W] - from_newest_W * (max_seq_len if every_position else 1)
    starts_W = np.maximum(ends_W - max_seq_len, 0)
    return offsets_U[users_W] + starts_W, ends_W - starts_W
