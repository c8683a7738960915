"""The two experts of a GLINT-RU block (arXiv 2406.10244): a dense selective GRU and linear attention.

Shapes: B batch, L length, D width, H heads, K head width. Time comes first (L, B, D).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from glintru_model.config import GlintruConfig
from glintru_model.models.attention import (
    UNIT_EPSILON,
    causal_linear_attention,
    linear_attention,
    linear_attention_newest,
    linear_attention_step,
    unit_norm,
)
from glintru_model.models.base import at_newest
from glintru_model.models.cpu_kernels import attention as cpu_attention
from glintru_model.models.cpu_kernels.compiled import can_run
from glintru_model.models.gru import GRU
from glintru_model.models.layers import Dropout, TemporalConv, at_least_float32, linear

NORM_EPSILON = 1e-8
ALL_THREE, QUERY, KEY_AND_VALUE = slice(0, 3), slice(0, 1), slice(1, 3)


class BlockState(NamedTuple):
    """What a block remembers of a history, of the same size however long it is.

    Attributes:
        conv_window: the last inputs of the first convolution, (kernel_size - 1, B, D).
        gru_hidden: (B, D).
        gate_window: the last inputs of the second convolution, (kernel_size - 1, B, D).
        attention: sum of k v^T over the history, float32, (B, H, K, K).
        attention_lost: what rounding has lost of that sum, (B, H, K, K).
    """

    conv_window: Tensor
    gru_hidden: Tensor
    gate_window: Tensor
    attention: Tensor
    attention_lost: Tensor


class SelectiveGRU(nn.Module):
    """Dense selective GRU (eq. 4 to 9): C = conv(X W0), Y = conv(gate(C) * (GRU(C) W_H))."""

    def __init__(self, config: GlintruConfig) -> None:
        super().__init__()
        dim, causal = config.embedding_dim, config.variant == "causal"
        self.input = linear(dim, dim)
        self.conv = TemporalConv(dim, config.kernel_size, causal=causal)
        self.gru = GRU(dim)
        self.channel_crossing = linear(dim, dim)
        bottleneck = max(1, dim // 2)
        self.gate = nn.Sequential(linear(dim, bottleneck), nn.SiLU(), linear(bottleneck, dim))
        self.dropout = Dropout(config.dropout_rate)
        self.gated_conv = TemporalConv(dim, config.kernel_size, causal=causal)

    def forward(self, x_LBD: Tensor, mask_LB1: Tensor | None) -> Tensor:
        """Return (L, B, D)."""
        conv_LBD = self.conv(_masked(self.input(x_LBD), mask_LB1))
        return self.gated_conv(_masked(self._selected(conv_LBD, self.gru(conv_LBD)), mask_LB1))  # type: ignore[no-any-return]

    def newest(self, x_LBD: Tensor, lengths_B: Tensor, mask_LB1: Tensor) -> Tensor:
        """Return `forward`'s row of each newest step, (B, D)."""
        conv_LBD = self.conv(self.input(x_LBD) * mask_LB1)
        recurrent_LBD = self.gru(conv_LBD)
        conv_TBD, recurrent_TBD = (self.last_steps(x, lengths_B) for x in (conv_LBD, recurrent_LBD))
        return self.newest_from(conv_TBD, recurrent_TBD, lengths_B)

    def last_steps(self, x_LBD: Tensor, lengths_B: Tensor) -> Tensor:
        """Take from each history the T steps that the second convolution sees at the newest one, (T, B, D)."""
        return torch.stack([at_newest(x_LBD, lengths_B, back) for back in range(self.gated_conv.before, -1, -1)])

    def newest_from(self, conv_TBD: Tensor, recurrent_TBD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return `forward`'s row of each newest step, (B, D), from its last steps of both layers before."""
        back_T1 = torch.arange(len(conv_TBD) - 1, -1, -1, device=lengths_B.device)[:, None]
        return self.gated_conv.newest(self._selected(conv_TBD, recurrent_TBD) * (lengths_B > back_T1)[..., None])

    def prefixes(self, x_LBD: Tensor) -> Tensor:
        """Return in row t what `forward` gives in row t of steps 0..t alone, (L, B, D), for every t at once.

        A prefix differs from the whole in its newest steps only, those whose convolution would see what comes after.
        Up to them all prefixes share one recurrence; then each takes so many steps of its own, side by side.
        """
        length, width = len(x_LBD), x_LBD.shape[1:]
        by_sight = self.conv.by_sight(self.input(x_LBD))
        ahead, shared_LBD = len(by_sight) - 1, self.gru(by_sight[-1])
        # rows of `hidden` and of a tap are prefixes, from the shortest that has such a step
        hidden = shared_LBD[: max(0, length - ahead)]
        taps = [self._selected(by_sight[-1][: len(hidden)], hidden)]
        for sight in range(ahead - 1, -1, -1):
            conv = by_sight[sight][: max(0, length - sight)]
            before = F.pad(hidden, (0, 0, 0, 0, 1, 0))[: len(conv)]
            hidden = self.gru.step(conv.flatten(0, 1), before.flatten(0, 1)).view(len(conv), *width)
            taps.append(self._selected(conv, hidden))
        aligned = torch.stack([F.pad(tap, (0, 0, 0, 0, length - len(tap), 0)) for tap in taps])
        return self.gated_conv.newest(aligned.flatten(1, 2)).view(length, *width)

    def step(self, x_BD: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Advance by one event; what belongs to the attention is passed on."""
        conv_BD, conv_window = self.conv.step(self.input(x_BD), state.conv_window)
        gru_hidden = self.gru.step(conv_BD, state.gru_hidden)
        out_BD, gate_window = self.gated_conv.step(self._selected(conv_BD, gru_hidden), state.gate_window)
        return out_BD, state._replace(conv_window=conv_window, gru_hidden=gru_hidden, gate_window=gate_window)

    def _selected(self, conv: Tensor, recurrent: Tensor) -> Tensor:
        selected: Tensor = self.dropout(self.gate(conv)) * self.channel_crossing(recurrent)
        return selected


class LinearAttention(nn.Module):
    """Linear attention (eq. 2) with output projection, residual and LayerNorm."""

    def __init__(self, config: GlintruConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.heads = (config.num_heads, dim // config.num_heads)
        self.query_key_value = linear(dim, 3 * dim)
        self.output = linear(dim, dim)
        self.dropout = Dropout(config.dropout_rate)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPSILON)

    def forward(self, x_LBD: Tensor, mask_LB1: Tensor | None, *, causal: bool) -> Tensor:
        """Return (L, B, D)."""
        if causal and mask_LB1 is None and can_run(x_LBD, self.heads[1]):
            projected_LB3HK = at_least_float32(self.query_key_value(x_LBD)).view(*x_LBD.shape[:2], 3, *self.heads)
            return self.added(x_LBD, cpu_attention.causal_linear_attention(projected_LB3HK, UNIT_EPSILON).flatten(2))
        q, k, v = (x.permute(1, 2, 0, 3) for x in self.project(x_LBD))  # (B, H, L, K)
        if mask_LB1 is not None:
            k = k * mask_LB1.permute(1, 2, 0)[..., None]
        attended_BHLK = causal_linear_attention(q, k, v) if causal else linear_attention(q, k, v)
        return self.added(x_LBD, attended_BHLK.permute(2, 0, 1, 3).flatten(2))

    def newest(self, x_LBD: Tensor, lengths_B: Tensor, mask_LB1: Tensor) -> Tensor:
        """Return `forward`'s row of each newest step, (B, D)."""
        x_BD = at_newest(x_LBD, lengths_B)
        [q_BHK] = self.project(x_BD, QUERY)
        k, v = (x.permute(1, 2, 0, 3) for x in self.project(x_LBD, KEY_AND_VALUE))  # (B, H, L, K)
        attended_BHK = linear_attention_newest(q_BHK, k * mask_LB1.permute(1, 2, 0)[..., None], v)
        return self.added(x_BD, attended_BHK.flatten(1))

    def step(self, x_BD: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Advance by one event; only what belongs to the attention changes."""
        q_BHK, k_BHK, v_BHK = self.project(x_BD)
        attended_BHK, *sums = linear_attention_step(q_BHK, k_BHK, v_BHK, state.attention, state.attention_lost)
        return self.added(x_BD, attended_BHK.flatten(1)), state._replace(attention=sums[0], attention_lost=sums[1])

    def project(self, x: Tensor, which: slice = ALL_THREE) -> tuple[Tensor, ...]:
        """Return those of unit-norm q and k, and v, each (..., H, K); a long sum of them needs float32."""
        rows = slice(which.start * x.shape[-1], which.stop * x.shape[-1])
        projected = F.linear(x, self.query_key_value.weight[rows], self.query_key_value.bias[rows])
        projected = at_least_float32(projected).view(*x.shape[:-1], -1, *self.heads)
        normed = min(which.stop, 2) - which.start
        # the gradient of a split is written once, whereas that of a slice is added to zeros
        to_norm, others = torch.split(projected, [normed, which.stop - which.start - normed], dim=-3)
        return *map(unit_norm, F.elu(to_norm).unbind(-3)), *others.unbind(-3)

    def added(self, x: Tensor, attended: Tensor) -> Tensor:
        """Project what the heads read, add it to the input and normalise, (..., D)."""
        added: Tensor = self.norm(self.dropout(self.output(attended), x))
        return added


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
