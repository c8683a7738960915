"""GLINT-RU (arXiv 2406.10244): a dense selective GRU and linear attention as two experts, then a gated MLP.

Layers are those of the authors' release; the variants differ in what a position may see. `paper` has symmetric
convolutions and attends to the whole history, `causal` sees the past alone and so can be fed one event at a time.
Both differ from the release in this: its three dropouts of 0.3 follow `dropout_rate`, the L2 norms have an epsilon,
padding is zeroed before each convolution and in the keys (unless `released_padding`), and blocks can be stacked.

Shapes: B batch, L length, D width, H heads, K head width. Inside, time comes first (L, B, D).
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from glintru_model.config import GlintruConfig
from glintru_model.errors import ConfigError
from glintru_model.models.base import (
    PADDING_ID,
    SequentialRecommender,
    at_newest,
    padding_mask,
    refuse_unknown_items,
)
from glintru_model.models.glintru_by_item import newest_of_experts
from glintru_model.models.glintru_experts import NORM_EPSILON, BlockState, LinearAttention, SelectiveGRU
from glintru_model.models.layers import Dropout, gelu_gate, linear, mixed_gelu_gate

State = tuple[BlockState, ...]

CPU_BATCH_POSITIONS_BY_ITEM = 1 << 17  # the more steps share the items' part, the better


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

    def newest_by_item(self, embedded_UD: Tensor, steps_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the same as `newest`, (B, D), from what each item brings (arguments: `newest_of_experts`)."""
        return self._mixed(*newest_of_experts(self.recurrent, self.attention, embedded_UD, steps_BL, lengths_B))

    def prefixes(self, x_LBD: Tensor) -> Tensor:
        """Return in row t what `forward` gives in row t of steps 0..t alone, (L, B, D), for every t at once."""
        return self._mixed(x_LBD, self.recurrent.prefixes(x_LBD), self.attention(x_LBD, None, causal=True))

    def step(self, x_BD: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Advance by one event."""
        recurrent_BD, state = self.recurrent.step(x_BD, state)
        attended_BD, state = self.attention.step(x_BD, state)
        return self._mixed(x_BD, recurrent_BD, attended_BD), state

    def _mixed(self, x: Tensor, recurrent: Tensor, attended: Tensor) -> Tensor:
        mixed = mixed_gelu_gate(recurrent, attended, self.expert_weights.softmax(0), self.data_gate(x))
        hidden = self.norm(self.dropout(self.mixed_output(mixed), x))
        gated = gelu_gate(self.mlp_value_gate(hidden))
        out: Tensor = self.norm(self.dropout(self.mlp_output(gated), hidden))
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

    def last_hidden(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Turn each history into the vector of its newest position, hidden_BD; see `SequentialRecommender`.

        In evaluation mode and without gradients, one causal block on a CPU takes as many steps as there are items, or
        more, item by item, in the weights' precision whatever autocast says.
        """
        is_inference = not self.training and not torch.is_grad_enabled()
        if not (is_inference and self._goes_by_item(item_ids_BL.numel())):
            return super().last_hidden(item_ids_BL, lengths_B)
        self._refuse_bad_input(item_ids_BL, lengths_B)
        with torch.autocast("cpu", enabled=False):
            return self._newest_by_item(item_ids_BL, lengths_B)

    def batch_positions(self, num_positions: int) -> int:
        """Return how many positions are encoded together: see `SequentialRecommender`."""
        by_item = self._goes_by_item(min(num_positions, CPU_BATCH_POSITIONS_BY_ITEM))
        return CPU_BATCH_POSITIONS_BY_ITEM if by_item else super().batch_positions(num_positions)

    def _goes_by_item(self, num_positions: int) -> bool:
        on_cpu = self.item_embedding.weight.device.type == "cpu"
        return on_cpu and self.causal and self.config.num_blocks == 1 and num_positions >= self.num_items

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

    def _newest_by_item(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        lengths_B, order = lengths_B.sort(descending=True)
        is_item_BL = padding_mask(lengths_B, item_ids_BL.shape[1])
        item_ids_BL = torch.where(is_item_BL, item_ids_BL[order], PADDING_ID)
        items_U, steps_BL = self._occurring(item_ids_BL)
        hidden_BD = cast(GlintruBlock, self.blocks[0]).newest_by_item(self._embed(items_U), steps_BL, lengths_B)
        return torch.empty_like(hidden_BD).index_copy_(0, order, hidden_BD)

    def _occurring(self, item_ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return padding and the items that occur, ascending, (U,), and where in it each id is, (B, L)."""
        occurs = torch.zeros(self.num_items + 1, dtype=torch.bool, device=item_ids_BL.device)
        occurs[item_ids_BL] = True
        occurs[PADDING_ID] = True  # also where no history is padded
        return occurs.nonzero()[:, 0], (occurs.cumsum(0) - 1)[item_ids_BL]

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
