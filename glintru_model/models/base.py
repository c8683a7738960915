"""The interface every model has.

Shapes: B batch, L length, D width, V items in the catalogue. Histories are padded on the right with `PADDING_ID`.
"""

import torch
from torch import Tensor, nn

from glintru_model.config import ArchitectureConfig
from glintru_model.errors import DataError

PADDING_ID = 0
EMBEDDING_STD = 0.02
CPU_BATCH_POSITIONS = 1 << 13  # whose products a core's cache holds
GPU_BATCH_POSITIONS = 1 << 18


class SequentialRecommender(nn.Module):
    """A network from a history of items to a vector, scored against the table of item embeddings.

    `forward` is the architecture alone and trusts its input; `encode` is the same, but refuses bad input.

    Attributes:
        num_items: V; items are 1..V.
        max_seq_len: newest items of a history that are looked at.
        causal: whether position t of `encode` sees only items up to t.
        trains_every_position: whether `prefixes` exists, so that one pass trains every position.
        item_embedding: (V + 1, D); row 0 is padding and stays zero.
    """

    def __init__(self, num_items: int, architecture: ArchitectureConfig, *, causal: bool) -> None:
        super().__init__()
        self.trains_every_position = causal
        self.num_items = num_items
        self.max_seq_len = architecture.max_seq_len
        self.causal = causal
        self.item_embedding = nn.Embedding(num_items + 1, architecture.embedding_dim, padding_idx=PADDING_ID)
        with torch.no_grad():
            self.item_embedding.weight[PADDING_ID + 1 :].normal_(0, EMBEDDING_STD)

    def forward(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BLD; what it holds at padding is undefined."""
        raise NotImplementedError

    def prefixes(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BLD whose row t is the newest vector of the history 0..t, to train every t in one pass.

        Of a causal model it is what `forward` gives. It trusts its input; what it holds at padding is undefined.
        """
        hidden_BLD: Tensor = self(item_ids_BL, lengths_B)
        return hidden_BLD

    def newest(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute the vector of each history's newest position alone, hidden_BD; it trusts its input."""
        hidden_BLD = self(item_ids_BL, lengths_B)
        return at_newest(hidden_BLD.transpose(0, 1), lengths_B)

    def encode(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Turn histories into vectors, one per position.

        Args:
            item_ids_BL: items 1..V, oldest first, padded on the right.
            lengths_B: how many of them are items, 1..L.

        Returns:
            hidden_BLD; row t of a causal model depends on items 0..t alone. What it holds at padding is undefined.

        Raises:
            DataError: an item outside the vocabulary, a length of 0 or above L, or shapes that do not fit.
        """
        self._refuse_bad_input(item_ids_BL, lengths_B)
        hidden_BLD: Tensor = self(item_ids_BL, lengths_B)
        return hidden_BLD

    def last_hidden(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Turn each history into the vector of its newest position, hidden_BD (input and errors as `encode`)."""
        self._refuse_bad_input(item_ids_BL, lengths_B)
        return self.newest(item_ids_BL, lengths_B)

    def score(self, hidden_BD: Tensor) -> Tensor:
        """Score the whole catalogue, (B, V + 1); column 0 (padding) is -inf."""
        scores_BV1 = hidden_BD @ self.item_embedding.weight.T
        scores_BV1[:, PADDING_ID] = -torch.inf
        return scores_BV1

    def batch_positions(self, num_positions: int) -> int:
        """Return how many of so many positions of histories `last_hidden` encodes fastest together."""
        return CPU_BATCH_POSITIONS if self.item_embedding.weight.device.type == "cpu" else GPU_BATCH_POSITIONS

    def _refuse_bad_input(self, item_ids_BL: Tensor, lengths_B: Tensor) -> None:
        if item_ids_BL.dim() != 2 or lengths_B.shape != item_ids_BL.shape[:1] or not item_ids_BL.numel():
            raise DataError(
                f"item_ids of shape {tuple(item_ids_BL.shape)} with lengths of shape {tuple(lengths_B.shape)}, "
                "expected (B, L) and (B,) with B and L at least 1"
            )
        length = item_ids_BL.shape[1]
        items_BL = item_ids_BL.masked_fill(~padding_mask(lengths_B, length), 1)
        padded_BL = item_ids_BL.masked_fill(item_ids_BL == PADDING_ID, 1)  # padding need not be 0, but has to be known
        shortest, longest, *bounds = _bounds(lengths_B, items_BL, padded_BL)
        if shortest < 1 or longest > length:
            raise DataError(f"history length {shortest if shortest < 1 else longest}, allowed: 1..{length}")
        _refuse_unknown(bounds, self.num_items)


def at_newest(x_LBD: Tensor, lengths_B: Tensor, back: int = 0) -> Tensor:
    """Take from each history the row `back` steps before its newest one, (B, D); its oldest where there is none."""
    places_B = (lengths_B - 1 - back).clamp_min(0)
    return x_LBD[places_B, torch.arange(len(lengths_B), device=lengths_B.device)]


def padding_mask(lengths_B: Tensor, length: int) -> Tensor:
    """Say which positions hold an item: bool, (B, length)."""
    return torch.arange(length, device=lengths_B.device) < lengths_B[:, None]


def refuse_unknown_items(item_ids: Tensor, num_items: int) -> None:
    """Raise DataError where an index is not one of 1..num_items."""
    _refuse_unknown(_bounds(item_ids), num_items)


def _refuse_unknown(item_ids: list[int], num_items: int) -> None:
    for item_id in item_ids:
        if not 1 <= item_id <= num_items:
            raise DataError(f"item index {item_id}, allowed: 1..{num_items}")


def _bounds(*tensors: Tensor) -> list[int]:
    """Return the smallest and the largest of each tensor, with one wait for a GPU."""
    bounds: list[int] = torch.stack([bound for tensor in tensors for bound in tensor.aminmax()]).tolist()
    return bounds
