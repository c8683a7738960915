"""What a hidden vector is trained on: the item that came next, against all others or against some.

Shapes: N rows (one a target), D width, V items, R rows of a chunk, B items of a block, G groups of rows, K
negatives. Every loss takes hidden_ND, the item table (V + 1, D) whose row 0 is padding and never a candidate, and
targets_N in 1..V, and returns the sum over rows with weights_N, the mean without.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from glintru_model.config import TrainingConfig


class Loss(Protocol):
    """One of the losses below, bound to its settings."""

    def __call__(self, hidden_ND: Tensor, table: Tensor, targets_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
        """Compute the loss."""


CPU_BLOCK_ELEMENTS = 1 << 17  # logits that are used again while they are in a core's cache
GPU_BLOCK_ELEMENTS = 1 << 27  # a fraction of a GPU's memory
MIN_CHUNK_ROWS = 128
SMALL_LOGIT = 60.0  # exp needs no shift: neither it, nor a sum of millions, nor their inverse leaves float32
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


def cross_entropy(
    hidden_ND: Tensor,
    table: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy over the whole catalogue that never holds all logits.

    Without weights it equals `F.cross_entropy(hidden_ND @ table[1:].T, targets_N - 1, label_smoothing=...)`. The
    gradient is formed chunk by chunk in the forward pass, while a chunk's exponentials are at hand.

    Args:
        hidden_ND, table, targets_N, weights_N: see the module.
        label_smoothing: share of a target's probability that all items share evenly.
    """
    if weights_N is None:
        weights_N = _even_weights(hidden_ND)
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden_ND, table, targets_N, weights_N, label_smoothing)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """loss = log sum_v exp(l_v) - (1 - s) l_target - s mean_v(l_v), with l = h W^T and smoothing s.

    Only the first term needs all logits; the others are products of h with single rows and with the mean row of W.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, table: Tensor, targets_N: Tensor, weights_N: Tensor, smoothing: float
    ) -> Tensor:
        device = hidden_ND.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else hidden_ND.dtype
        with torch.autocast(device, enabled=False):
            hidden, items_VD = hidden_ND.to(dtype), table[1:].to(dtype)
            if any(ctx.needs_input_grad[:2]):
                loss, *ctx.grads = _loss_and_gradients(hidden, items_VD, targets_N - 1, weights_N, smoothing)
                ctx.dtypes = hidden_ND.dtype, table.dtype
            else:
                loss = _loss_alone(hidden, items_VD, targets_N - 1, weights_N, smoothing)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (grad_hidden, grad_table), (hidden_dtype, table_dtype) = ctx.grads, ctx.dtypes
        return grad_hidden.mul_(grad).to(hidden_dtype), grad_table.mul_(grad).to(table_dtype), None, None, None


def _loss_and_gradients(
    hidden_ND: Tensor, items_VD: Tensor, targets_N: Tensor, weights_N: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss and its gradients by hidden_ND and by the table (V + 1, D), in float32 at least."""
    (rows, dim), num_items = hidden_ND.shape, len(items_VD)
    wide = torch.promote_types(hidden_ND.dtype, torch.float32)
    weights_N1 = weights_N[:, None].to(wide)
    grad_hidden_ND = torch.zeros(rows, dim, dtype=wide, device=hidden_ND.device)
    grad_table = torch.zeros(num_items + 1, dim, dtype=wide, device=hidden_ND.device)
    grad_items_VD = grad_table[1:]
    chunk_rows, block_items = _sizes(hidden_ND, items_VD)
    item_blocks, grad_blocks = (torch.split(x, block_items) for x in (items_VD, grad_items_VD))
    log_sums = []
    for rows_R, shift_R, exponentials in _chunks(hidden_ND, items_VD, chunk_rows, block_items):
        grad_hidden_RD, sum_R, kept = grad_hidden_ND[rows_R], torch.zeros_like(weights_N1[rows_R, 0]), []
        for items_BD, exponentials_BR in zip(item_blocks, exponentials, strict=True):
            sum_R += exponentials_BR.sum(0, dtype=wide)
            _add_product(grad_hidden_RD, exponentials_BR.T, items_BD)
            kept.append(exponentials_BR)
        # weighed probabilities are exponentials * weight / sum; the quotient is left to the narrow factor
        quotient_R1 = weights_N1[rows_R] / sum_R[:, None]
        grad_hidden_RD *= quotient_R1
        weighed_RD = (hidden_ND[rows_R] * quotient_R1).to(hidden_ND.dtype)
        for grad_items_BD, exponentials_BR in zip(reversed(grad_blocks), reversed(kept), strict=True):  # from the cache
            _add_product(grad_items_BD, exponentials_BR, weighed_RD)
        log_sums.append(sum_R.log() + shift_R)
    wide_hidden_ND, target_items_ND = hidden_ND.to(wide), items_VD[targets_N].to(wide)
    weighed_ND = wide_hidden_ND * weights_N1
    loss_N = torch.cat(log_sums) - (1 - smoothing) * (wide_hidden_ND * target_items_ND).sum(1)
    grad_hidden_ND.addcmul_(target_items_ND, weights_N1, value=smoothing - 1)
    grad_items_VD.index_add_(0, targets_N, weighed_ND, alpha=smoothing - 1)
    if smoothing:
        mean_item_D = items_VD.mean(0, dtype=wide)
        loss_N -= smoothing * (wide_hidden_ND @ mean_item_D)
        grad_hidden_ND.addcmul_(mean_item_D, weights_N1, value=-smoothing)
        grad_items_VD.sub_(weighed_ND.sum(0), alpha=smoothing / num_items)
    return torch.dot(loss_N, weights_N1[:, 0]), grad_hidden_ND, grad_table


def _loss_alone(hidden_ND: Tensor, items_VD: Tensor, targets_N: Tensor, weights_N: Tensor, smoothing: float) -> Tensor:
    wide = torch.promote_types(hidden_ND.dtype, torch.float32)
    log_sums = []
    for _, shift_R, exponentials in _chunks(hidden_ND, items_VD, *_sizes(hidden_ND, items_VD)):
        sums = [exponentials_BR.sum(0, dtype=wide) for exponentials_BR in exponentials]
        log_sums.append(torch.stack(sums).sum(0).log() + shift_R)
    aim_ND = (1 - smoothing) * items_VD[targets_N] + smoothing * items_VD.mean(0)
    return _weighed(torch.cat(log_sums) - (hidden_ND * aim_ND).sum(1), weights_N)


def _sizes(hidden_ND: Tensor, items_VD: Tensor) -> tuple[int, int]:
    """Return how many rows a chunk has, and how many items a block of its logits."""
    elements = CPU_BLOCK_ELEMENTS if hidden_ND.device.type == "cpu" else GPU_BLOCK_ELEMENTS
    chunk_rows = min(len(hidden_ND), max(MIN_CHUNK_ROWS, elements // len(items_VD)))
    return chunk_rows, max(1, elements // chunk_rows)


def _chunks(
    hidden_ND: Tensor, items_VD: Tensor, chunk_rows: int, block_items: int
) -> Iterator[tuple[slice, Tensor | float, Iterator[Tensor]]]:
    """Yield each chunk's rows, their shifts, and exp(l - shift), block after block; valid until the next chunk."""
    item_blocks, are_small = torch.split(items_VD, block_items), _are_small(hidden_ND, items_VD)
    logits_VR = hidden_ND.new_empty(len(items_VD), chunk_rows)
    for begin in range(0, len(hidden_ND), chunk_rows):
        hidden_RD = hidden_ND[begin : begin + chunk_rows]
        logits_VR = logits_VR[:, : len(hidden_RD)]
        blocks = torch.split(logits_VR, block_items)
        if are_small:
            shift_R: Tensor | float = 0.0
            exponentials = (_product(*pair, hidden_RD).exp_() for pair in zip(blocks, item_blocks, strict=True))
        else:
            shift_R = _product(logits_VR, items_VD, hidden_RD).amax(0)
            exponentials = (logits_BR.sub_(shift_R).exp_() for logits_BR in blocks)
        yield slice(begin, begin + len(hidden_RD)), shift_R, exponentials


def _product(out_BR: Tensor, items_BD: Tensor, hidden_RD: Tensor) -> Tensor:
    return torch.mm(items_BD, hidden_RD.T, out=out_BR)


def _are_small(hidden_ND: Tensor, items_VD: Tensor) -> bool:
    """Tell whether no logit can be greater than `SMALL_LOGIT`, by the norms; not asked of a GPU, which would wait."""
    if hidden_ND.device.type != "cpu":
        return False
    norms = (torch.linalg.vector_norm(x, dim=1).amax() for x in (hidden_ND, items_VD))
    return math.prod(map(float, norms)) < SMALL_LOGIT


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


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


def _even_weights(hidden_ND: Tensor) -> Tensor:
    wide = torch.promote_types(hidden_ND.dtype, torch.float32)
    return torch.full((len(hidden_ND),), 1 / len(hidden_ND), dtype=wide, device=hidden_ND.device)


def _weighed(loss_N: Tensor, weights_N: Tensor | None) -> Tensor:
    return loss_N.mean() if weights_N is None else torch.dot(loss_N, weights_N.to(loss_N.dtype))


def _positive_logits(hidden_ND: Tensor, table: Tensor, targets_N: Tensor) -> Tensor:
    return (hidden_ND * F.embedding(targets_N, table)).sum(1).float()
