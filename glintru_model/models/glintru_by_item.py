"""The newest vectors of many histories from one causal GLINT-RU block on a CPU, without gradients.

The block has no positions, so what a step brings to the recurrence and to the attention's sum depends on its item
alone, and for the recurrence on the few items before it. It is computed once for each item that occurs; the steps then
look it up, a few at a time, so that what is in hand stays in the core's cache. Histories go from the longest to the
shortest, and each leaves the recurrence after its newest item.

Shapes: B histories, L length, D width, U rows (the items that occur, and one for padding), T taps of a convolution, n
steps of a chunk, G = B * heads, K head width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from glintru_model.models.attention import linear_attention_read
from glintru_model.models.base import at_newest
from glintru_model.models.cpu_kernels.compiled import can_run, run
from glintru_model.models.glintru_experts import KEY_AND_VALUE, QUERY, LinearAttention, SelectiveGRU

POSITIONS_AT_ONCE = 4096


class _PerItem(NamedTuple):
    """What an item brings, one row an item; row 0, before a history and behind it, brings nothing.

    Attributes:
        conv: (T, U, D), its share of the convolution as the oldest item of the window, ..., as the newest.
        key, value: (U, D).
    """

    conv: Tensor
    key: Tensor
    value: Tensor


def newest_of_experts(
    recurrent: SelectiveGRU,
    attention: LinearAttention,
    embedded_UD: Tensor,
    steps_BL: Tensor,
    lengths_B: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each history's newest item as embedded, and what the two experts give for its step, (B, D) each.

    Args:
        recurrent, attention: of a causal block, in evaluation mode.
        embedded_UD: the items that occur; row 0 is for padding.
        steps_BL: rows of it, padded on the right with 0.
        lengths_B: steps of each history, from the longest to the shortest.
    """
    per_item = _per_item(recurrent, attention, embedded_UD)
    windows_LBT = F.pad(steps_BL.T, (0, 0, recurrent.conv.before, 0)).unfold(0, recurrent.conv.before + 1, 1)
    if can_run(embedded_UD, attention.heads[1]):
        states_TBD, sum_GKK = _through_time_by_kernel(recurrent, attention.heads, per_item, steps_BL, lengths_B)
    else:
        states_TBD, sum_GKK = _through_time(recurrent, attention.heads[0], per_item, windows_LBT, lengths_B)
    conv_TBD = _convolved(per_item.conv, recurrent.last_steps(windows_LBT, lengths_B))
    newest_BD = embedded_UD[at_newest(steps_BL.T, lengths_B)]
    [q_BHK] = attention.project(newest_BD, QUERY)
    attended_BHK = linear_attention_read(q_BHK, sum_GKK.view(*q_BHK.shape, -1))
    attended_BD = attention.added(newest_BD, attended_BHK.flatten(1))
    return newest_BD, recurrent.newest_from(conv_TBD, states_TBD, lengths_B), attended_BD


def _per_item(recurrent: SelectiveGRU, attention: LinearAttention, embedded_UD: Tensor) -> _PerItem:
    is_item_U1 = torch.arange(len(embedded_UD), device=embedded_UD.device)[:, None] > 0
    conv_TUD = torch.matmul(recurrent.input(embedded_UD) * is_item_U1, recurrent.conv.weight.mT)
    conv_TUD[-1] += recurrent.conv.bias  # a window's newest is always an item
    k_UHK, v_UHK = attention.project(embedded_UD, KEY_AND_VALUE)
    return _PerItem(conv_TUD, k_UHK.flatten(1) * is_item_U1, v_UHK.flatten(1))


def _convolved(conv_TUD: Tensor, windows: Tensor) -> Tensor:
    """Sum each window's shares, (..., D); windows are rows of the table, the oldest first, (..., T)."""
    taps, num_rows, dim = conv_TUD.shape
    rows_NT = (windows + torch.arange(taps, device=windows.device) * num_rows).flatten(0, -2)
    return F.embedding_bag(rows_NT, conv_TUD.flatten(0, 1), mode="sum").view(*windows.shape[:-1], dim)


def _through_time(
    recurrent: SelectiveGRU, num_heads: int, per_item: _PerItem, windows_LBT: Tensor, lengths_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the GRU's states after each history's last steps, (T, B, D), and its sum of k v^T, (G, K, K).

    Args:
        recurrent, num_heads, per_item, lengths_B: see above.
        windows_LBT: what the convolution sees at each step, rows of `per_item`.
    """
    batch, dim = len(lengths_B), per_item.key.shape[1]
    states = per_item.key.new_zeros(recurrent.gated_conv.before + 1, batch, dim)
    sum_GKK = states.new_zeros(batch * num_heads, dim // num_heads, dim // num_heads)
    still_there = (lengths_B > torch.arange(int(lengths_B[0]), device=lengths_B.device)[:, None]).sum(1).tolist()
    start = 0
    while start < len(still_there):
        there = still_there[start]
        chunk = still_there[start : start + max(1, POSITIONS_AT_ONCE // there)]
        windows_nBT = windows_LBT[start : start + len(chunk), :there]
        gates_nB3D = F.linear(_convolved(per_item.conv, windows_nBT), recurrent.gru.weight_input)
        remaining_B = (lengths_B[:there] - start).clamp_max(len(chunk))
        states[:, :there] = _advance(recurrent.gru.weight_hidden, states[:, :there], gates_nB3D, chunk, remaining_B)
        k_GnK, v_GnK = (
            F.embedding(windows_nBT[..., -1], rows).view(len(chunk), there * num_heads, -1).transpose(0, 1)
            for rows in (per_item.key, per_item.value)
        )
        sum_GKK[: there * num_heads].baddbmm_(k_GnK.mT, v_GnK)
        start += len(chunk)
    return states, sum_GKK


def _through_time_by_kernel(
    recurrent: SelectiveGRU, heads: tuple[int, int], per_item: _PerItem, steps_BL: Tensor, lengths_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the same, with the loops in C."""
    taps, num_rows, dim = per_item.conv.shape
    kept = recurrent.gated_conv.before + 1
    (batch, length), (num_heads, head_dim) = steps_BL.shape, heads
    of_input, of_state = recurrent.gru.weight_input.T, recurrent.gru.weight_hidden.T
    weights = (of_input[:, : 2 * dim], of_state[:, : 2 * dim], of_input[:, 2 * dim :], of_state[:, 2 * dim :])
    packed = torch.cat([weight.flatten() for weight in weights])
    states = packed.new_zeros(kept, batch, dim)
    sum_GKK = packed.new_empty(batch * num_heads, head_dim, head_dim)
    tables = per_item.conv.contiguous(), per_item.key.contiguous(), per_item.value.contiguous()
    sizes = length, taps, num_rows, dim, num_heads, kept
    histories = steps_BL.contiguous(), lengths_B.long().contiguous()
    run("experts_by_item", batch, *sizes, *tables, packed, *histories, states, sum_GKK)
    return states, sum_GKK


def _advance(weight: Tensor, states: Tensor, gates_nB3D: Tensor, still_there: list[int], remaining_B: Tensor) -> Tensor:
    """Take each history up to n steps on, as `GRU.step` does; `gates_nB3D` is overwritten.

    Args:
        weight: (3D, D).
        states: the last of each history, the newest last, (T, B, D).
        gates_nB3D: what the steps bring.
        still_there: how many histories, the first ones, take each step.
        remaining_B: how many of the steps each history takes.

    Returns:
        The states after them, (T, B, D).
    """
    taps, batch, dim = states.shape
    trail = states.new_empty(taps + len(still_there), batch, dim)
    trail[:taps] = states
    hidden, to_gates, to_new = torch.empty_like(states[0]), weight[: 2 * dim].T, weight[2 * dim :].T
    for at, (gates, rows) in enumerate(zip(gates_nB3D, still_there, strict=True), start=taps - 1):
        state, candidate = trail[at, :rows], gates[:rows, 2 * dim :]
        reset_update = gates[:rows, : 2 * dim].addmm_(state, to_gates).sigmoid_()
        torch.mm(state, to_new, out=hidden[:rows])
        candidate.addcmul_(hidden[:rows], reset_update[:, :dim]).tanh_()
        torch.lerp(candidate, state, reset_update[:, dim:], out=trail[at + 1, :rows])
    histories = torch.arange(batch, device=states.device)
    return trail[remaining_B + torch.arange(taps, device=states.device)[:, None], histories]
