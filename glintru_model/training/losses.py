"""What a hidden vector is trained on: the item that came next, against all others or against some.

Shapes: N rows (one a target), D width, V items, G groups of rows, K negatives. Every loss takes
hidden_ND, the item table (V + 1, D) whose row 0 is padding and never a candidate, and targets_N in 1..V, and returns
the sum over rows with weights_N, the mean without.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from glintru_model.config import TrainingConfig
from glintru_model.training.cross_entropy import cross_entropy


class Loss(Protocol):
    """One of the losses below, bound to its settings."""

    def __call__(self, hidden_ND: Tensor, table: Tensor, targets_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
        """Compute the loss."""


GATHERED_NEGATIVES = 1 << 16  # embeddings of negatives held at once
GBCE_CALIBRATION = 0.75  # t of gBCE: 0 is BCE, 1 calibrates fully


def build_loss(config: TrainingConfig, train_counts: npt.NDArray[np.int64], device: torch.device) -> Loss:
    """Bind the configured loss to its settings.

    Args:
        config: which loss, and its settings.
        train_counts: training events of each item, (V,); sampled softmax draws by them.
        device: where the loss is computed.
    """
    if config.loss == "cross_entropy":
        return partial(cross_entropy, label_smoothing=config.label_smoothing)
    if config.loss == "sampled_softmax":
        share = np.maximum(train_counts, 1) / np.maximum(train_counts, 1).sum()
        proposal_V = torch.from_numpy(share).to(device, torch.float32)
        return partial(sampled_softmax, num_negatives=config.num_negatives, proposal_V=proposal_V)
    calibration = GBCE_CALIBRATION if config.loss == "gbce" else 0.0
    return partial(binary_cross_entropy, num_negatives=config.num_negatives, calibration=calibration)


def sampled_softmax(
    hidden_ND: Tensor,
    table: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    num_negatives: int,
    proposal_V: Tensor,
) -> Tensor:
    """Softmax over the target and K drawn items, corrected for how often each is drawn (logQ).

    A negative's logit is lowered by log(K q); the target's is not, and negatives equal to it are left out. The sum
    of exponentials is then an unbiased estimate of that over the whole catalogue.

    Args:
        hidden_ND, table, targets_N, weights_N: see the module.
        num_negatives: K.
        proposal_V: probability q of drawing each item.
    """
    cumulative_V = proposal_V.cumsum(0)

    def draw(shape: tuple[int, int]) -> Tensor:
        uniform = torch.rand(shape, device=proposal_V.device) * cumulative_V[-1]
        return torch.searchsorted(cumulative_V, uniform).clamp_max(len(proposal_V) - 1) + 1

    negatives = _Negatives(hidden_ND, table, targets_N, num_negatives, draw)
    correction = (num_negatives * proposal_V).log()[negatives.item_ids_GK - 1]
    negative_logits_NK = negatives.logits_NK - negatives.per_row(correction)
    positive_N1 = _positive_logits(hidden_ND, table, targets_N)[:, None]
    logits = torch.cat([positive_N1, negative_logits_NK.masked_fill(negatives.is_target_NK, -torch.inf)], dim=1)
    return _weighed(logits.logsumexp(1) - positive_N1[:, 0], weights_N)


def binary_cross_entropy(
    hidden_ND: Tensor,
    table: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    num_negatives: int,
    calibration: float,
) -> Tensor:
    """Binary cross-entropy of the target against K items drawn evenly, averaged over the K + 1.

    With calibration t > 0 it is gBCE (arXiv 2308.07192): the target's probability is raised to
    b = a (t (1 - 1/a) + 1/a), a = K / (V - 1), which undoes the overconfidence that sampling brings.
    """
    num_items = len(table) - 1

    def draw(shape: tuple[int, int]) -> Tensor:
        return torch.randint(1, num_items + 1, shape, device=table.device)

    negatives = _Negatives(hidden_ND, table, targets_N, num_negatives, draw)
    sampled_share = min(1.0, num_negatives / max(1, num_items - 1))
    power = sampled_share * (calibration * (1 - 1 / sampled_share) + 1 / sampled_share)
    positive_N = power * F.softplus(-_positive_logits(hidden_ND, table, targets_N))
    negative_NK = F.softplus(negatives.logits_NK).masked_fill(negatives.is_target_NK, 0.0)
    return _weighed(positive_N + negative_NK.sum(1), weights_N) / (num_negatives + 1)


class _Negatives:
    """Drawn items and their logits. A draw of K serves so few rows as memory allows: one, where K is small."""

    def __init__(
        self,
        hidden_ND: Tensor,
        table: Tensor,
        targets_N: Tensor,
        num_negatives: int,
        draw: Callable[[tuple[int, int]], Tensor],
    ) -> None:
        self.num_rows, dim = hidden_ND.shape
        self.rows_per_draw = -(-self.num_rows * num_negatives // GATHERED_NEGATIVES)
        groups = -(-self.num_rows // self.rows_per_draw)
        missing = groups * self.rows_per_draw - self.num_rows
        self.item_ids_GK = draw((groups, num_negatives))
        grouped = F.pad(hidden_ND, (0, 0, 0, missing)).view(groups, self.rows_per_draw, dim)
        logits = torch.bmm(grouped, F.embedding(self.item_ids_GK, table).mT)
        self.logits_NK = logits.flatten(0, 1)[: self.num_rows].float()
        self.is_target_NK = self.per_row(self.item_ids_GK) == targets_N[:, None]

    def per_row(self, values_GK: Tensor) -> Tensor:
        """Repeat each draw's values for the rows that it serves, (N, K)."""
        return values_GK.repeat_interleave(self.rows_per_draw, dim=0)[: self.num_rows]


def _weighed(loss_N: Tensor, weights_N: Tensor | None) -> Tensor:
    return loss_N.mean() if weights_N is None else torch.dot(loss_N, weights_N.to(loss_N.dtype))


def _positive_logits(hidden_ND: Tensor, table: Tensor, targets_N: Tensor) -> Tensor:
    return (hidden_ND * F.embedding(targets_N, table)).sum(1).float()
