"""GLINT-RU (arXiv 2406.10244): a dense selective GRU and linear attention as two experts, then a gated MLP.

Layers are those of the authors' release; the variants differ in what a position may see. `paper` has symmetric
convolutions and attends to the whole history, `causal` sees the past alone and so can be fed one event at a time.
Both differ from the release in this: its three dropouts of 0.3 follow `dropout_rate`, the L2 norms have an epsilon,
padding is zeroed before each convolution and in the keys (unless `released_padding`), and blocks can be stacked.

Shapes: B batch, L length, D width, H heads, K head width. Inside, time comes first (L, B, D).
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from glintru_model.config import GlintruConfig
from glintru_model.errors import ConfigError
from glintru_model.models.attention import (
    causal_linear_attention,
    linear_attention,
    linear_attention_newest,
    linear_attention_step,
    unit_norm,
)
from glintru_model.models.base import SequentialRecommender, at_newest, padding_mask, refuse_unknown_items
from glintru_model.models.layers import GRU, Dropout, TemporalConv, at_least_float32, linear

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


State = tuple[BlockState, ...]


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
        taps = []
        for back in range(self.gated_conv.before, -1, -1):
            conv_BD, recurrent_BD = (at_newest(x, lengths_B, back) for x in (conv_LBD, recurrent_LBD))
            selected_BD = self._selected(conv_BD, recurrent_BD)
            taps.append(selected_BD * (lengths_B > back)[:, None])
        return self.gated_conv.newest(torch.stack(taps))

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
        q, k, v = (x.permute(1, 2, 0, 3) for x in self._project(x_LBD))  # (B, H, L, K)
        if mask_LB1 is not None:
            k = k * mask_LB1.permute(1, 2, 0)[..., None]
        attended_BHLK = causal_linear_attention(q, k, v) if causal else linear_attention(q, k, v)
        return self._added(x_LBD, attended_BHLK.permute(2, 0, 1, 3).flatten(2))

    def newest(self, x_LBD: Tensor, lengths_B: Tensor, mask_LB1: Tensor) -> Tensor:
        """Return `forward`'s row of each newest step, (B, D)."""
        x_BD = at_newest(x_LBD, lengths_B)
        [q_BHK] = self._project(x_BD, QUERY)
        k, v = (x.permute(1, 2, 0, 3) for x in self._project(x_LBD, KEY_AND_VALUE))  # (B, H, L, K)
        attended_BHK = linear_attention_newest(q_BHK, k * mask_LB1.permute(1, 2, 0)[..., None], v)
        return self._added(x_BD, attended_BHK.flatten(1))

    def step(self, x_BD: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Advance by one event; only what belongs to the attention changes."""
        q_BHK, k_BHK, v_BHK = self._project(x_BD)
        attended_BHK, *sums = linear_attention_step(q_BHK, k_BHK, v_BHK, state.attention, state.attention_lost)
        return self._added(x_BD, attended_BHK.flatten(1)), state._replace(attention=sums[0], attention_lost=sums[1])

    def _project(self, x: Tensor, which: slice = ALL_THREE) -> tuple[Tensor, ...]:
        """Return those of unit-norm q and k, and v, each (..., H, K); a long sum of them needs float32."""
        rows = slice(which.start * x.shape[-1], which.stop * x.shape[-1])
        projected = F.linear(x, self.query_key_value.weight[rows], self.query_key_value.bias[rows])
        projected = at_least_float32(projected).view(*x.shape[:-1], -1, *self.heads)
        normed = min(which.stop, 2) - which.start
        q_and_k = unit_norm(F.elu(projected[..., :normed, :, :]))
        return *q_and_k.unbind(-3), *projected[..., normed:, :, :].unbind(-3)

    def _added(self, x: Tensor, attended: Tensor) -> Tensor:
        added: Tensor = self.norm(self.dropout(self.output(attended)) + x)
        return added


class GlintruBlock(nn.Module):
    """Expert mixing, data-aware gate and gated MLP (eq. 10 to 13); one LayerNorm serves both residuals."""

    def __init__(self, config: GlintruConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.recurrent = SelectiveGRU(config)
        self.attention = LinearAttention(config)
        self.expert_weights = nn.Parameter(torch.tensor([0.5, 0.5]))  # recurrent, attention; before the softmax
        self.data_gate = linear(dim, dim)
        self.mixed_output = linear(dim, dim)
        self.mlp_value_gate = linear(dim, 2 * dim)
        self.mlp_output = linear(dim, dim)
        self.dropout = Dropout(config.dropout_rate)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.causal = config.variant == "causal"

    def forward(self, x_LBD: Tensor, mask_LB1: Tensor | None) -> Tensor:
        """Return (L, B, D)."""
        attended_LBD = self.attention(x_LBD, mask_LB1, causal=self.causal)
        return self._mixed(x_LBD, self.recurrent(x_LBD, mask_LB1), attended_LBD)

    def newest(self, x_LBD: Tensor, lengths_B: Tensor, mask_LB1: Tensor) -> Tensor:
        """Return `forward`'s row of each newest step, (B, D)."""
        recurrent_BD = self.recurrent.newest(x_LBD, lengths_B, mask_LB1)
        return self._mixed(at_newest(x_LBD, lengths_B), recurrent_BD, self.attention.newest(x_LBD, lengths_B, mask_LB1))

    def prefixes(self, x_LBD: Tensor) -> Tensor:
        """Return in row t what `forward` gives in row t of steps 0..t alone, (L, B, D), for every t at once."""
        return self._mixed(x_LBD, self.recurrent.prefixes(x_LBD), self.attention(x_LBD, None, causal=True))

    def step(self, x_BD: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Advance by one event."""
        recurrent_BD, state = self.recurrent.step(x_BD, state)
        attended_BD, state = self.attention.step(x_BD, state)
        return self._mixed(x_BD, recurrent_BD, attended_BD), state

    def _mixed(self, x: Tensor, recurrent: Tensor, attended: Tensor) -> Tensor:
        weights = self.expert_weights.softmax(0)
        mixed = (weights[0] * recurrent + weights[1] * attended) * F.gelu(self.data_gate(x))
        hidden = self.norm(self.dropout(self.mixed_output(mixed)) + x)
        value, gate = self.mlp_value_gate(hidden).chunk(2, dim=-1)
        out: Tensor = self.norm(self.dropout(self.mlp_output(value * F.gelu(gate))) + hidden)
        return out


class GLINTRU(SequentialRecommender):
    """Blocks over item embeddings, without positions."""

    def __init__(self, config: GlintruConfig, num_items: int) -> None:
        super().__init__(num_items, config, causal=config.variant == "causal")
        self.trains_every_position = self.causal or (config.num_blocks == 1 and not config.released_padding)
        self.config = config
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(GlintruBlock(config) for _ in range(config.num_blocks))

    def forward(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BLD of any length L; what it holds at padding is undefined."""
        return self._run(self.blocks, *self._enter(item_ids_BL, lengths_B)).transpose(0, 1)

    def newest(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BD; of the last block only what the newest position needs, under half of it."""
        if self.config.released_padding:
            return super().newest(item_ids_BL, lengths_B)
        x_LBD, mask_LB1 = self._enter(item_ids_BL, lengths_B)
        x_LBD = self._run(self.blocks[:-1], x_LBD, mask_LB1)
        return cast(GlintruBlock, self.blocks[-1]).newest(x_LBD, lengths_B, mask_LB1)

    def prefixes(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BLD whose row t is the newest vector of the history 0..t, for every t in one pass.

        A single block of `paper` can do so too: what its newest position reads of the older ones does not depend on
        what came after, but for the convolutions at the edge.
        """
        if self.causal:
            return self(item_ids_BL, lengths_B)  # type: ignore[no-any-return]
        x_LBD, _ = self._enter(item_ids_BL, lengths_B)
        hidden_LBD: Tensor = cast(GlintruBlock, self.blocks[0]).prefixes(x_LBD)
        return hidden_LBD.transpose(0, 1)

    def _run(self, blocks: Iterable[nn.Module], x_LBD: Tensor, mask_LB1: Tensor) -> Tensor:
        masked = not (self.causal or self.config.released_padding)  # right padding is out of a causal position's sight
        for block in blocks:
            x_LBD = block(x_LBD, mask_LB1 if masked else None)
        return x_LBD

    def _embed(self, item_ids: Tensor) -> Tensor:
        embedded: Tensor = self.item_embedding(item_ids)
        return embedded * embedded.shape[-1] ** 0.5 if self.config.scale_embeddings else embedded

    def _enter(self, item_ids_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        x_LBD: Tensor = self.dropout(self._embed(item_ids_BL.T))
        return x_LBD, padding_mask(lengths_B, item_ids_BL.shape[1]).T[..., None].to(x_LBD.dtype)

    def initial_state(self, batch_size: int) -> State:
        """Return the state of `batch_size` empty histories.

        Raises:
            ConfigError: the variant is not causal: its past depends on what comes.
        """
        if not self.causal:
            raise ConfigError(f"variant {self.config.variant!r} cannot be fed event by event, allowed: causal")
        config, table = self.config, self.item_embedding.weight
        window = table.new_zeros(config.kernel_size - 1, batch_size, config.embedding_dim)
        head_dim = config.embedding_dim // config.num_heads
        hidden = table.new_zeros(batch_size, config.embedding_dim)
        attention = table.new_zeros(batch_size, config.num_heads, head_dim, head_dim)
        return (BlockState(window, hidden, window, attention, attention),) * config.num_blocks

    def step(self, item_ids_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Feed one event to each history, at a cost that does not depend on how long it is.

        Args:
            item_ids_B: items 1..V.
            state: of the events before; it is not changed.

        Returns:
            hidden_BD, equal to the newest row of `encode` of the whole history, and the next state.

        Raises:
            DataError: an item outside the vocabulary.
        """
        refuse_unknown_items(item_ids_B, self.num_items)
        x_BD, following = self._embed(item_ids_B), []
        for block, block_state in zip(self.blocks, state, strict=True):
            x_BD, block_state = cast(GlintruBlock, block).step(x_BD, block_state)
            following.append(block_state)
        return x_BD, tuple(following)


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
