"""Training batches, gathered on the device from the training part that lies there whole.

Shapes: U users, W samples, B batch, L length, N targets.

A sample is a range of a user's training events. For a model that is trained at every position it is a window: inputs
are all its events but the last, targets all but the first. A history longer than max_seq_len is cut into
consecutive windows, anew for each epoch, so that every training event but the user's first is a target exactly once;
windows share one event and no context, which costs nothing twice, and whatever is near a cut in one epoch has its
context in another. For a model trained at the last position alone, every event but the first ends a sample of its own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glintru_model.data.sequences import PADDING_ID, SequenceDataset
from glintru_model.errors import DataError

LENGTH_JITTER = 0.1  # samples whose lengths differ by less than this share may meet in a batch


Int64Array = npt.NDArray[np.int64]


class Samples(NamedTuple):
    """Ranges of the flat array of events: where each begins and how many inputs it has, (W,) both."""

    starts: Int64Array
    lengths: Int64Array


class Batch(NamedTuple):
    """One step's samples on the device.

    Attributes:
        item_ids: inputs, padded on the right, (B, L).
        lengths: inputs of each sample, (B,).
        rows, positions: where in (B, L) each target is to be predicted, (N,).
        targets: item indices, (N,).
        weights: of each target in the loss, float32, (N,); those of a whole batch sum to 1.
    """

    item_ids: Tensor
    lengths: Tensor
    rows: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor


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
            batch_size: samples of a batch, on average, if long histories were cut as seldom as can be.
            every_position: one target a position, or one a sample.
            seed: of the batches' order.
            device: where batches are gathered.

        Raises:
            DataError: no user has two training events, or an item lies outside the vocabulary.
        """
        self._offsets_U, self._inputs_U = dataset.offsets[:-1], np.maximum(dataset.train_ends - 1, 0)
        self.num_targets = int(self._inputs_U.sum())
        if not self.num_targets:
            raise DataError(f"none of {dataset.num_users} users has 2 training events, nothing to train on")
        items = dataset.item_ids
        smallest, largest = int(items.min()), int(items.max())
        if smallest <= PADDING_ID or largest > dataset.num_items:
            found = smallest if smallest <= PADDING_ID else largest
            raise DataError(f"training sequences: item index {found}, allowed: 1..{dataset.num_items}")
        self._max_seq_len, self._every_position, self._seed = max_seq_len, every_position, seed
        self._items_N = torch.from_numpy(np.array(items)).to(device)
        num_samples = int((-(-self._inputs_U // max_seq_len)).sum()) if every_position else self.num_targets
        self._num_batches = max(1, round(num_samples / batch_size))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        plan = self.plan(epoch)
        device = self._items_N.device
        # one transfer an epoch: for each of them a GPU's queue runs empty
        starts, lengths = (torch.from_numpy(np.concatenate(part)).to(device) for part in zip(*plan, strict=True))
        begin = 0
        for samples in plan:
            rows = slice(begin, begin + len(samples.starts))
            yield self._gather(starts[rows], lengths[rows], int(samples.lengths.max()), int(samples.lengths.sum()))
            begin = rows.stop

    def plan(self, epoch: int) -> list[Samples]:
        """Return the samples of each batch of an epoch, in the order of training."""
        random = np.random.default_rng((self._seed, epoch))
        if self._every_position:
            samples = _windows(self._offsets_U, self._inputs_U, self._max_seq_len, random)
        else:
            samples = _prefixes(self._offsets_U, self._inputs_U, self._max_seq_len)
        jittered = samples.lengths * (1 + LENGTH_JITTER * random.random(len(samples.lengths)))
        by_length = np.argsort(jittered, kind="stable")
        seen = np.cumsum(samples.lengths[by_length] if self._every_position else np.ones_like(by_length))
        cuts = self.num_targets / self._num_batches * np.arange(1, self._num_batches)
        rows = [rows for rows in np.split(by_length, np.searchsorted(seen, cuts, side="right")) if len(rows)]
        return [Samples(samples.starts[rows[i]], samples.lengths[rows[i]]) for i in random.permutation(len(rows))]

    def padding_share(self, epoch: int) -> float:
        """Return which share of an epoch's positions is padding."""
        lengths = [samples.lengths for samples in self.plan(epoch)]
        positions = sum(len(lengths_B) * int(lengths_B.max()) for lengths_B in lengths)
        return 1 - sum(int(lengths_B.sum()) for lengths_B in lengths) / positions

    def _gather(self, starts_B: Tensor, lengths_B: Tensor, longest: int, num_inputs: int) -> Batch:
        """Gather samples without a look at what lies on the device, which would wait for it."""
        device = starts_B.device
        steps_L = torch.arange(longest, device=device)
        is_item_BL = steps_L < lengths_B[:, None]
        places_BL = torch.where(is_item_BL, starts_B[:, None] + steps_L, 0)
        item_ids_BL = torch.where(is_item_BL, self._items_N[places_BL], PADDING_ID)
        rows_N = torch.arange(len(starts_B), device=device)
        if self._every_position:
            rows_N = rows_N.repeat_interleave(lengths_B, output_size=num_inputs)
            begins_N = (lengths_B.cumsum(0) - lengths_B)[rows_N]
            positions_N = torch.arange(num_inputs, device=device) - begins_N
        else:
            positions_N = lengths_B - 1
        targets_N = self._items_N[starts_B[rows_N] + positions_N + 1]
        weights_N = torch.full((len(rows_N),), 1 / len(rows_N), device=device)
        return Batch(item_ids_BL.long(), lengths_B, rows_N, positions_N, targets_N.long(), weights_N)


def _windows(offsets_U: Int64Array, inputs_U: Int64Array, max_seq_len: int, random: np.random.Generator) -> Samples:
    """Cut each user's inputs into windows; where there are several, the oldest has a random length."""
    oldest_U = np.where(inputs_U > max_seq_len, random.integers(1, max_seq_len + 1, len(inputs_U)), 0)
    windows_U = -(-(inputs_U - oldest_U) // max_seq_len) + (oldest_U > 0)
    users_W = np.repeat(np.arange(len(windows_U)), windows_U)
    from_oldest_W = np.arange(len(users_W)) - np.repeat(np.cumsum(windows_U) - windows_U, windows_U)
    shift_W = np.where(oldest_U > 0, oldest_U - max_seq_len, 0)[users_W]
    begins_W = np.maximum(from_oldest_W * max_seq_len + shift_W, 0)
    ends_W = np.minimum((from_oldest_W + 1) * max_seq_len + shift_W, inputs_U[users_W])
    return Samples(offsets_U[users_W] + begins_W, ends_W - begins_W)


def _prefixes(offsets_U: Int64Array, inputs_U: Int64Array, max_seq_len: int) -> Samples:
    """Let each of a user's inputs be the newest of a sample."""
    users_W = np.repeat(np.arange(len(inputs_U)), inputs_U)
    ends_W = np.arange(1, len(users_W) + 1) - np.repeat(np.cumsum(inputs_U) - inputs_U, inputs_U)
    begins_W = np.maximum(ends_W - max_seq_len, 0)
    return Samples(offsets_U[users_W] + begins_W, ends_W - begins_W)
