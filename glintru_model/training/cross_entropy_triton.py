"""What stands between cross-entropy's products on a GPU, as one kernel in place of four passes over the logits.

A program takes a row's greatest logit, then turns the row into exponentials and sums them.

Shapes: R rows, V items.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_LARGE_CATALOGUE = 8192


def exponentials(logits_RV: Tensor, weights_R: Tensor) -> tuple[Tensor, Tensor]:
    """Turn logits into exp(l - the row's greatest), in place.

    Args:
        logits_RV: float32 or narrower; rows are contiguous.
        weights_R: contiguous, float32.

    Returns:
        Each row's log sum_v exp(l_v), and its weight over its sum of what the logits become, (R,) each.
    """
    log_sums_R, quotients_R = torch.empty_like(weights_R), torch.empty_like(weights_R)
    rows, num_items = logits_RV.shape
    block = 2048 if num_items <= _LARGE_CATALOGUE else 4096  # columns at once, the faster by measurement
    arguments = logits_RV, weights_R, log_sums_R, quotients_R, num_items, logits_RV.stride(0)
    with torch.cuda.device(logits_RV.device):
        _exponentials[(rows,)](*arguments, BLOCK=block, num_warps=8)
    return log_sums_R, quotients_R


@triton.jit(do_not_specialize=["num_items"])
def _exponentials(logits, weights, log_sums, quotients, num_items, row_stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    logits += row.to(tl.int64) * row_stride
    columns = tl.arange(0, BLOCK)
    greatest = tl.full((BLOCK,), float("-inf"), tl.float32)
    for begin in range(0, num_items, BLOCK):
        inside = begin + columns < num_items
        logit = tl.load(logits + begin + columns, mask=inside, other=float("-inf")).to(tl.float32)
        greatest = tl.maximum(greatest, logit, propagate_nan=tl.PropagateNan.ALL)
    shift = tl.max(greatest, 0)
    total = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, num_items, BLOCK):
        inside = begin + columns < num_items
        logit = tl.load(logits + begin + columns, mask=inside, other=float("-inf")).to(tl.float32)
        exponential = tl.exp(logit - shift).to(logits.dtype.element_ty)
        tl.store(logits + begin + columns, exponential, mask=inside)
        total += exponential.to(tl.float32)
    sum_of_row = tl.sum(total, 0)
    tl.store(log_sums + row, tl.log(sum_of_row) + shift)
    tl.store(quotients + row, tl.load(weights + row) / sum_of_row)
