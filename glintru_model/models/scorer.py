"""A model as evaluation and serving see it: histories in, scores of the whole catalogue out."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glintru_model.errors import DataError
from glintru_model.models.base import PADDING_ID, SequentialRecommender


class ModelScorer:
    """Scores histories by a model, which it puts into evaluation mode for the time of a call."""

    def __init__(self, model: SequentialRecommender) -> None:
        self.model = model

    def score_histories(
        self,
        item_ids: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> Tensor:
        """Score every item as the next of each history.

        Args:
            item_ids: item indices 1..V, oldest first, all histories in one flat array.
            starts, ends: each history's range in `item_ids`, (B,); only its last max_seq_len items are read.

        Returns:
            float32 (B, V + 1) on the model's device; column 0 (padding) is -inf.

        Raises:
            DataError: a history is empty or holds an item outside the vocabulary.
        """
        if (ends <= starts).any():
            row = int(np.flatnonzero(ends <= starts)[0])
            raise DataError(f"history {row} is empty, expected at least 1 item")
        model, was_training = self.model, self.model.training
        device = model.item_embedding.weight.device
        starts = np.maximum(starts, ends - model.max_seq_len)
        hidden_BD = torch.empty(len(starts), model.item_embedding.embedding_dim, device=device)
        model.eval()
        try:
            with torch.no_grad():  # not inference mode: callers mask the scores in place
                positions = model.batch_positions(int((ends - starts).sum()))
                for rows in _together(ends - starts, positions):
                    item_ids_BL, lengths_B = pad_right(item_ids, starts[rows], ends[rows])
                    last_BD = model.last_hidden(item_ids_BL.to(device), lengths_B.to(device))
                    hidden_BD[torch.from_numpy(rows).to(device)] = last_BD.float()
                return model.score(hidden_BD)
        finally:
            model.train(was_training)


def _together(lengths: npt.NDArray[np.int64], positions: int) -> Iterator[npt.NDArray[np.int64]]:
    """Cut histories of like length, so that little is padding, into batches of so many positions, or one history."""
    longest_first = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(longest_first):
        count = max(1, positions // int(lengths[longest_first[begin]]))
        yield longest_first[begin : begin + count]
        begin += count


def pad_right(
    item_ids: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Gather ranges of a flat array into one padded batch: item_ids_BL and lengths_B, int64 on the CPU."""
    lengths = ends - starts
    steps = np.arange(lengths.max(initial=1))
    is_item = steps < lengths[:, None]
    padded = np.where(is_item, item_ids[np.where(is_item, starts[:, None] + steps, 0)], PADDING_ID)
    return torch.from_numpy(padded.astype(np.int64)), torch.from_numpy(lengths.astype(np.int64))
