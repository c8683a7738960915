"""The part of cross-entropy over a catalogue that needs all logits, on a GPU.

Between its products, of rows with items and of exponentials with either, stands one kernel in place of four passes over
the logits: a program takes a row's greatest logit, then turns the row into exponentials and sums them.

Shapes: N rows (one a target), R rows of a chunk, D width, V items.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_CHUNK_BYTES = 1 << 29  # of logits, a fraction of a GPU's memory
_ROWS_MULTIPLE = 64
_FEWEST_ROWS = 128
_COLUMNS_MULTIPLE = 8  # a GPU's products are faster where rows of a matrix begin at 16 bytes
_LARGE_CATALOGUE = 8192


def sums_and_gradients(
    hidden_ND: Tensor, items_VD: Tensor, weights_N: Tensor, grad_items_VD: Tensor
) -> tuple[Tensor, Tensor]:
    """Return each row's log sum_v exp(h . w_v), (N,), and the gradient of their weighed sum by hidden_ND, float32.

    That by the items takes the place of the zeros in grad_items_VD. hidden_ND and items_VD are float32 or narrower.
    """
    rows, num_items, weights_N = len(hidden_ND), len(items_VD), weights_N.contiguous()
    columns = -(-num_items // _COLUMNS_MULTIPLE) * _COLUMNS_MULTIPLE
    most_rows = _CHUNK_BYTES // hidden_ND.itemsize // columns // _ROWS_MULTIPLE * _ROWS_MULTIPLE
    logits_RV = hidden_ND.new_empty(min(rows, max(most_rows, _FEWEST_ROWS)), columns)[:, :num_items]
    log_sums_N, quotients_N = torch.empty_like(weights_N), torch.empty_like(weights_N)
    grad_hidden_ND = torch.empty_like(hidden_ND, dtype=torch.float32)
    block = 2048 if num_items <= _LARGE_CATALOGUE else 4096  # columns at once, the faster by measurement
    for begin in range(0, rows, len(logits_RV)):
        part = slice(begin, begin + len(logits_RV))
        hidden_RD, logits_RV = hidden_ND[part], logits_RV[: rows - begin]
        torch.mm(hidden_RD, items_VD.T, out=logits_RV)
        results = weights_N[part], log_sums_N[part], quotients_N[part]
        with torch.cuda.device(logits_RV.device):
            _exponentials[(len(logits_RV),)](logits_RV, *results, num_items, columns, BLOCK=block, num_warps=8)
        # weighed probabilities are exponentials * weight / sum; the quotient is left to the narrow factor
        quotient_R1 = quotients_N[part, None]
        torch.mul(logits_RV @ items_VD, quotient_R1, out=grad_hidden_ND[part])
        weighed_RD = (hidden_RD * quotient_R1).to(hidden_ND.dtype)
        if grad_items_VD.dtype == logits_RV.dtype:
            grad_items_VD.addmm_(logits_RV.T, weighed_RD)
        else:
            grad_items_VD.add_(logits_RV.T @ weighed_RD)
    return log_sums_N, grad_hidden_ND


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
