"""Cross-entropy over a whole catalogue that holds the logits of a few rows at a time.

Rows go in chunks, and a chunk's items in blocks, so that a block's logits, their exponentials and these times the
items follow each other in a core's cache. The gradient of the items, which needs each row's sum, takes a second pass.
In float32 on a CPU a kernel does all this; on a GPU one does what comes between the products.

Shapes: N rows (one a target), D width, S = D + 1, V items, R rows of a chunk, B items of a block.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from glintru_model.models.cpu_kernels.compiled import can_run
from glintru_model.models.cpu_kernels.cross_entropy import num_parts, sums_and_gradients
from glintru_model.models.gpu import has_kernels

CPU_BLOCK_BYTES = 1 << 20  # logits that are used again while they are in a core's cache
GPU_BLOCK_BYTES = 1 << 29  # a fraction of a GPU's memory
MIN_CHUNK_BYTES = 512  # of logits to an item: a chunk's are all held, 0.5 GB at a million items
ROWS_MULTIPLE = 64
COLUMNS_MULTIPLE = 8  # of items: a GPU's products are faster where lines of a matrix begin at 16 bytes
SMALL_LOGIT = 60.0  # exp needs no shift: neither it, nor a sum of millions, nor their inverse leaves float32


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
        hidden_ND, table, targets_N, weights_N: see `glintru_model.training.losses`.
        label_smoothing: share of a target's probability that all items share evenly.
    """
    if weights_N is None:
        weights_N = _even_weights(hidden_ND)
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden_ND, table, targets_N, weights_N, label_smoothing)  # type: ignore[no-untyped-call]
    return loss


def _even_weights(hidden_ND: Tensor) -> Tensor:
    wide = torch.promote_types(hidden_ND.dtype, torch.float32)
    return torch.full((len(hidden_ND),), 1 / len(hidden_ND), dtype=wide, device=hidden_ND.device)


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
        rows = len(hidden_ND)
        fill = -rows % ROWS_MULTIPLE if _wants_full_rows(device, dtype) else 0
        with torch.autocast(device, enabled=False):
            hidden, items_VD = F.pad(hidden_ND.to(dtype), (0, 0, 0, fill)), table[1:].to(dtype)
            targets, weights = F.pad(targets_N - 1, (0, fill)), F.pad(weights_N, (0, fill))
            loss, grad_hidden, grad_table = _loss_and_gradients(hidden, items_VD, targets, weights, smoothing)
        ctx.grads, ctx.dtypes = (grad_hidden[:rows], grad_table), (hidden_ND.dtype, table.dtype)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (grad_hidden, grad_table), (hidden_dtype, table_dtype) = ctx.grads, ctx.dtypes
        ctx.grads = None  # they are changed in place, so a second time would be wrong
        return grad_hidden.mul_(grad).to(hidden_dtype), grad_table.mul_(grad).to(table_dtype), None, None, None


def _wants_full_rows(device: str, dtype: torch.dtype) -> bool:
    """Tell whether rows are filled up with zeros to their multiple.

    oneDNN keeps code, for good, for each shape of a product in half precision; a GPU's products want aligned lines.
    """
    return device != "cpu" or dtype.itemsize < torch.float32.itemsize


def _loss_and_gradients(
    hidden_ND: Tensor, items_VD: Tensor, targets_N: Tensor, weights_N: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss and its gradients by hidden_ND and by the table (V + 1, D), in float32 at least."""
    wide = torch.promote_types(hidden_ND.dtype, torch.float32)
    weights_N1 = weights_N[:, None].to(wide)
    grad_table = torch.zeros(len(items_VD) + 1, items_VD.shape[1], dtype=wide, device=hidden_ND.device)
    grad_items_VD = grad_table[1:]
    log_sums_N, grad_hidden_ND = _sums(hidden_ND, items_VD, weights_N1, grad_items_VD)
    wide_hidden_ND, target_items_ND = hidden_ND.to(wide), items_VD[targets_N].to(wide)
    weighed_ND = wide_hidden_ND * weights_N1
    loss_N = log_sums_N - (1 - smoothing) * (wide_hidden_ND * target_items_ND).sum(1)
    grad_hidden_ND.addcmul_(target_items_ND, weights_N1, value=smoothing - 1)
    grad_items_VD.index_add_(0, targets_N, weighed_ND, alpha=smoothing - 1)
    if smoothing:
        mean_item_D = items_VD.mean(0, dtype=wide)
        loss_N -= smoothing * (wide_hidden_ND @ mean_item_D)
        grad_hidden_ND.addcmul_(mean_item_D, weights_N1, value=-smoothing)
        grad_items_VD.sub_(weighed_ND.sum(0), alpha=smoothing / len(items_VD))
    return torch.dot(loss_N, weights_N1[:, 0]), grad_hidden_ND, grad_table


def _sums(hidden_ND: Tensor, items_VD: Tensor, weights_N1: Tensor, grad_items_VD: Tensor) -> tuple[Tensor, Tensor]:
    """Return log sum_v exp(l_v) of each row, (N,), and the gradient of their weighed sum by hidden_ND.

    That by the items, which needs each row's sum, takes the place of the zeros in grad_items_VD.
    """
    if hidden_ND.itemsize <= torch.float32.itemsize and has_kernels(hidden_ND.device):
        return _sums_by_rows(hidden_ND, items_VD, weights_N1, grad_items_VD)
    are_small = _are_small(hidden_ND, items_VD)
    has_kernel = are_small and can_run(hidden_ND, hidden_ND.shape[1])
    if has_kernel and (parts := num_parts(len(hidden_ND), *items_VD.shape)):
        sums_N, grad_hidden_ND = sums_and_gradients(hidden_ND, items_VD, weights_N1[:, 0], grad_items_VD, parts)
        return sums_N.log(), grad_hidden_ND
    return _sums_in_chunks(hidden_ND, items_VD, weights_N1, grad_items_VD, are_small)


def _sums_in_chunks(
    hidden_ND: Tensor, items_VD: Tensor, weights_N1: Tensor, grad_items_VD: Tensor, are_small: bool
) -> tuple[Tensor, Tensor]:
    dim = hidden_ND.shape[1]
    grad_hidden_ND = torch.empty_like(hidden_ND, dtype=grad_items_VD.dtype)
    chunk_rows, block_items = _sizes(hidden_ND, items_VD)
    item_blocks, grad_blocks = (torch.split(x, block_items) for x in (items_VD, grad_items_VD))
    summing_blocks = torch.split(_with_ones(items_VD), block_items, dim=1)
    log_sums = []
    for rows_R, shift_R, blocks in _chunks(hidden_ND, items_VD, chunk_rows, block_items, are_small):
        hidden_RD = hidden_ND[rows_R]
        sums_SR = grad_items_VD.new_zeros(dim + 1, len(hidden_RD))
        for logits_BR, items_BD, summing_SB in zip(blocks, item_blocks, summing_blocks, strict=True):
            _add_product(sums_SR, summing_SB, _exponentials(logits_BR, items_BD, hidden_RD, shift_R))
        # weighed probabilities are exponentials * weight / sum; the quotient is left to the narrow factor
        quotient_R1 = weights_N1[rows_R] / sums_SR[dim, :, None]
        torch.mul(sums_SR[:dim].T, quotient_R1, out=grad_hidden_ND[rows_R])
        weighed_RD = (hidden_RD * quotient_R1).to(hidden_ND.dtype)
        for exponentials_BR, grad_items_BD in zip(reversed(blocks), reversed(grad_blocks), strict=True):
            _add_product(grad_items_BD, exponentials_BR, weighed_RD)  # the last ones are still in the cache
        log_sum_R = sums_SR[dim].log()
        log_sums.append(log_sum_R if shift_R is None else log_sum_R + shift_R)
    return torch.cat(log_sums), grad_hidden_ND


def _sums_by_rows(
    hidden_ND: Tensor, items_VD: Tensor, weights_N1: Tensor, grad_items_VD: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the same on a GPU, a chunk's logits as rows of all items: what is between the products is a kernel."""
    from glintru_model.training.cross_entropy_triton import exponentials  # needs Triton

    grad_hidden_ND = torch.empty_like(hidden_ND, dtype=grad_items_VD.dtype)
    chunk_rows, _ = _sizes(hidden_ND, items_VD)
    columns = _up_to_multiple(len(items_VD), COLUMNS_MULTIPLE)
    logits_RV = hidden_ND.new_empty(chunk_rows, columns)[:, : len(items_VD)]
    log_sums = []
    for begin in range(0, len(hidden_ND), chunk_rows):
        rows_R = slice(begin, begin + chunk_rows)
        hidden_RD = hidden_ND[rows_R]
        exponentials_RV = torch.mm(hidden_RD, items_VD.T, out=logits_RV[: len(hidden_RD)])
        log_sum_R, quotient_R = exponentials(exponentials_RV, weights_N1[rows_R, 0].contiguous())
        log_sums.append(log_sum_R)
        torch.mul(exponentials_RV @ items_VD, quotient_R[:, None], out=grad_hidden_ND[rows_R])
        _add_product(grad_items_VD, exponentials_RV.T, (hidden_RD * quotient_R[:, None]).to(hidden_ND.dtype))
    return torch.cat(log_sums), grad_hidden_ND


def _with_ones(items_VD: Tensor) -> Tensor:
    """Return the items as columns over a row of ones, (S, V): its product with exponentials ends in their sum."""
    num_items, dim = items_VD.shape
    with_ones_SV = items_VD.new_ones(dim + 1, _up_to_multiple(num_items, COLUMNS_MULTIPLE))[:, :num_items]
    with_ones_SV[:dim] = items_VD.T
    return with_ones_SV


def _sizes(hidden_ND: Tensor, items_VD: Tensor) -> tuple[int, int]:
    """Return how many rows a chunk has, and how many items a block of its logits."""
    elements = (CPU_BLOCK_BYTES if hidden_ND.device.type == "cpu" else GPU_BLOCK_BYTES) // hidden_ND.itemsize
    fewest = MIN_CHUNK_BYTES // hidden_ND.itemsize
    chunk_rows = min(len(hidden_ND), max(fewest, elements // len(items_VD) // ROWS_MULTIPLE * ROWS_MULTIPLE))
    blocks = -(-len(items_VD) * chunk_rows // elements)
    return chunk_rows, _up_to_multiple(-(-len(items_VD) // blocks), COLUMNS_MULTIPLE)


def _up_to_multiple(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _chunks(
    hidden_ND: Tensor, items_VD: Tensor, chunk_rows: int, block_items: int, are_small: bool
) -> Iterator[tuple[slice, Tensor | None, tuple[Tensor, ...]]]:
    """Yield each chunk's rows, its shifts (R,), and its blocks of logits (B, R): shifted, or still to be computed."""
    logits_VR, shift_R = hidden_ND.new_empty(len(items_VD), chunk_rows), None
    blocks = torch.split(logits_VR, block_items)
    for begin in range(0, len(hidden_ND), chunk_rows):
        hidden_RD = hidden_ND[begin : begin + chunk_rows]
        if len(hidden_RD) < chunk_rows:
            logits_VR = logits_VR[:, : len(hidden_RD)]
            blocks = torch.split(logits_VR, block_items)
        if not are_small:
            shift_R = torch.mm(items_VD, hidden_RD.T, out=logits_VR).amax(0)
            logits_VR.sub_(shift_R)
        yield slice(begin, begin + len(hidden_RD)), shift_R, blocks


def _exponentials(logits_BR: Tensor, items_BD: Tensor, hidden_RD: Tensor, shift_R: Tensor | None) -> Tensor:
    """Turn a block into exp(l - shift), in place."""
    if shift_R is None:  # else the logits are there
        torch.mm(items_BD, hidden_RD.T, out=logits_BR)
    return logits_BR.exp_()


def _are_small(hidden_ND: Tensor, items_VD: Tensor) -> bool:
    """Tell whether no logit can be greater than `SMALL_LOGIT`, by the norms; not asked of a GPU, which would wait."""
    if hidden_ND.device.type != "cpu":
        return False
    norms = (torch.linalg.vector_norm(x, dim=1).amax() for x in (hidden_ND, items_VD))
    return math.prod(map(float, norms)) < SMALL_LOGIT


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product; in half precision it, and with it a block's sums of exponentials, is rounded once."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
