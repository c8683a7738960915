"""The best items of rows of scores, in order.

Shapes: B rows, V items in the catalogue, K items to take.
"""

import torch
from torch import Tensor

from glintru_model.models.base import PADDING_ID
from glintru_model.models.cpu_kernels.compiled import can_run, run

_MOST_BY_KERNEL = 128  # which keeps the best in order by moving them


def best_first(scores_BV1: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Take the best items of each row and their scores, (B, K) each.

    Of equal scores, the item that is more frequent in training, whose index is the lower, stands first; where torch
    takes them, it is not told which of equal ones have the last places. Where fewer are left, the item is `PADDING_ID`
    and its score minus infinity; what is not a finite number is not taken.
    """
    if 1 <= count <= min(_MOST_BY_KERNEL, scores_BV1.shape[1]) and can_run(scores_BV1):
        scores_BV1 = scores_BV1.contiguous()
        scores_BK = scores_BV1.new_empty(len(scores_BV1), count)
        items_BK = torch.empty_like(scores_BK, dtype=torch.int64)
        run("best", len(scores_BV1), scores_BV1.shape[1], count, scores_BV1, scores_BK, items_BK)
        return items_BK, scores_BK
    scores_BK, items_BK = scores_BV1.nan_to_num(-torch.inf, -torch.inf, -torch.inf).topk(count)
    items_BK, order = items_BK.sort()
    scores_BK, by_score = scores_BK.gather(1, order).sort(descending=True, stable=True)
    return items_BK.gather(1, by_score).where(scores_BK > -torch.inf, PADDING_ID), scores_BK
