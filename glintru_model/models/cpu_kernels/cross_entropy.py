"""The part of cross-entropy over a catalogue that needs all logits, by a kernel.

Shapes: N rows (one a target), D width, a multiple of 16, V items.
"""

import torch
from torch import Tensor

from glintru_model.models.cpu_kernels.compiled import run

ROWS = 64  # what the kernel takes through the catalogue together
MOST_BYTES = 1 << 30


def num_parts(num_rows: int, num_items: int, dim: int) -> int:
    """Return how many threads can share the rows, 0 if even one would hold more than `MOST_BYTES`.

    Each holds the exponentials of its rows at hand, and a gradient of the items.
    """
    threads = min(torch.get_num_threads(), -(-num_rows // ROWS))
    return min(threads, MOST_BYTES // (4 * num_items * (ROWS + dim)))


def sums_and_gradients(
    hidden_ND: Tensor, items_VD: Tensor, weights_N: Tensor, grad_items_VD: Tensor, parts: int
) -> tuple[Tensor, Tensor]:
    """Return each row's sum of exp(h . w), (N,), and the gradient of sum_n weight_n log(sum_n) by hidden_ND.

    Its gradient by the items takes the place of the zeros in grad_items_VD. No logit may leave -88 to 88, where
    exp leaves float32.
    """
    hidden_ND, items_VD, weights_N = hidden_ND.contiguous(), items_VD.contiguous(), weights_N.contiguous()
    sums_N, grad_hidden_ND = torch.empty_like(weights_N), torch.empty_like(hidden_ND)
    grad_parts = grad_items_VD[None] if parts == 1 else items_VD.new_zeros(parts, *items_VD.shape)
    sizes = parts, len(hidden_ND), *items_VD.shape
    run("cross_entropy", parts, *sizes, hidden_ND, items_VD, weights_N, sums_N, grad_hidden_ND, grad_parts)
    if parts > 1:
        torch.sum(grad_parts, 0, out=grad_items_VD)
    return sums_N, grad_hidden_ND
