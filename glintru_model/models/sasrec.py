"""SASRec (arXiv 1808.09781): causal self-attention over item embeddings with learnable positions.

Shapes: B batch, L length, D width, H heads, K head width.
"""

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from glintru_model.config import SasrecConfig
from glintru_model.errors import DataError
from glintru_model.models.base import EMBEDDING_STD, SequentialRecommender, at_newest, padding_mask
from glintru_model.models.cpu_kernels.attention import causal_softmax_attention
from glintru_model.models.cpu_kernels.compiled import can_run, run
from glintru_model.models.layers import Dropout, linear

NORM_EPSILON = 1e-8
CPU_BATCH_POSITIONS_BY_KERNEL = 1 << 17  # it takes one history at a time; what items bring is prepared for all
ITEMS_REPEAT = 4  # as often, on average, before that pays


class SasrecBlock(nn.Module):
    """Pre-LayerNorm self-attention and a two-layer ReLU network, each with a residual.

    Dropout acts on what each part returns and inside the network, not on single attention weights: that keeps the
    attention in torch's fused kernels.
    """

    def __init__(self, config: SasrecConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.heads = (config.num_heads, dim // config.num_heads)
        self.attention_norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.query_key_value = linear(dim, 3 * dim)
        self.output = linear(dim, dim)
        self.network_norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.network_in = linear(dim, dim)
        self.network_out = linear(dim, dim)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return (B, L, D)."""
        qkv_BL3HK = self.query_key_value(self.attention_norm(x_BLD)).unflatten(-1, (3, *self.heads))
        if can_run(qkv_BL3HK, self.heads[1]):
            return self._transformed(x_BLD, causal_softmax_attention(qkv_BL3HK).flatten(2))
        q, k, v = qkv_BL3HK.unbind(-3)
        attended_BHLK = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        return self._transformed(x_BLD, attended_BHLK.transpose(1, 2).flatten(2))

    def newest(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return `forward`'s row of each newest step, (B, D)."""
        x_BD, normed_BLD = at_newest(x_BLD.transpose(0, 1), lengths_B), self.attention_norm(x_BLD)
        (q_weight, kv_weight), (q_bias, kv_bias) = (
            torch.split(parameter, [x_BD.shape[1], 2 * x_BD.shape[1]])
            for parameter in (self.query_key_value.weight, self.query_key_value.bias)
        )
        k, v = F.linear(normed_BLD, kv_weight, kv_bias).view(*x_BLD.shape[:2], 2, *self.heads).unbind(-3)
        q_BHK = F.linear(self.attention_norm(x_BD), q_weight, q_bias).view(len(x_BD), *self.heads)
        visible_B11L = padding_mask(lengths_B, x_BLD.shape[1])[:, None, None]
        attended_BH1K = F.scaled_dot_product_attention(
            q_BHK[:, :, None], k.transpose(1, 2), v.transpose(1, 2), attn_mask=visible_B11L
        )
        return self._transformed(x_BD, attended_BH1K.flatten(1))

    def packed(self) -> list[Tensor]:
        """Return the parameters in the order in which transformer.c takes them, matrices as (inputs, outputs)."""
        linears = self.query_key_value, self.output, self.network_in, self.network_out
        norms = [part for norm in (self.attention_norm, self.network_norm) for part in (norm.weight, norm.bias)]
        return [*(layer.weight.T for layer in linears), *(layer.bias for layer in linears), *norms]

    def _transformed(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.dropout(self.output(attended), x)
        inner = self.dropout(F.relu(self.network_in(self.network_norm(x))))
        out: Tensor = self.dropout(self.network_out(inner), x)
        return out


class SASRec(SequentialRecommender):
    """Self-attention blocks over item embeddings scaled by sqrt(D), and a final LayerNorm.

    Positions count from the oldest item that is looked at. The original pads on the left, so that they count back from
    the newest: that trains a history's earlier targets at positions at which none is ever recommended, and validates
    worse on MovieLens (README.md here).
    """

    def __init__(self, config: SasrecConfig, num_items: int) -> None:
        super().__init__(num_items, config, causal=True)
        self.scale = config.embedding_dim**0.5
        self.positions = nn.Embedding(config.max_seq_len, config.embedding_dim)
        nn.init.normal_(self.positions.weight, 0, EMBEDDING_STD)
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(SasrecBlock(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.embedding_dim, eps=NORM_EPSILON)

    def forward(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BLD; what it holds at padding is undefined.

        Raises:
            DataError: L is above max_seq_len.
        """
        if self._kernel_takes(item_ids_BL):
            return self._by_kernel(item_ids_BL, None)
        x_BLD = self._embed(item_ids_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD)  # right padding is out of the sight of a causal position
        out_BLD: Tensor = self.norm(x_BLD)
        return out_BLD

    def newest(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BD; of the last block only what the newest position needs (errors as `forward`)."""
        if self._kernel_takes(item_ids_BL, lengths_B):
            return self._by_kernel(item_ids_BL, lengths_B)
        x_BLD = self._embed(item_ids_BL)
        *lower, last = self.blocks
        for block in lower:
            x_BLD = block(x_BLD)
        hidden_BD: Tensor = self.norm(cast(SasrecBlock, last).newest(x_BLD, lengths_B))
        return hidden_BD

    def batch_positions(self, num_positions: int) -> int:
        """Return how many positions are encoded together: see `SequentialRecommender`."""
        return CPU_BATCH_POSITIONS_BY_KERNEL if self.has_kernel() else super().batch_positions(num_positions)

    def position_rows(self, length: int) -> Tensor:
        """Return the embedding of each step's position, (L, D); the kernel takes no other shape."""
        return self.positions.weight[:length]

    def has_kernel(self) -> bool:
        """Tell whether all of it is one kernel: it has neither gradient nor dropout, nor autocast's precision."""
        blocks = [cast(SasrecBlock, block) for block in self.blocks]
        drops = any(part.training and part.rate > 0 for part in (self.dropout, *(block.dropout for block in blocks)))
        is_inference = not (drops or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        return is_inference and can_run(self.item_embedding.weight, self.positions.embedding_dim, blocks[0].heads[1])

    def _kernel_takes(self, item_ids_BL: Tensor, lengths_B: Tensor | None = None) -> bool:
        """Tell whether a kernel is there for this input; what no model takes is left to torch, which refuses it."""
        return (
            self.has_kernel()
            and type(item_ids_BL) is Tensor
            and item_ids_BL.dtype in (torch.int32, torch.int64)
            and item_ids_BL.numel() > 0
            and (lengths_B is None or lengths_B.shape == item_ids_BL.shape[:1])
            and not ((item_ids_BL < 0) | (item_ids_BL > self.num_items)).any()
        )

    def _by_kernel(self, item_ids_BL: Tensor, lengths_B: Tensor | None) -> Tensor:
        """Return every step's hidden_BLD or, where lengths are given, each newest one's hidden_BD."""
        batch, length = item_ids_BL.shape
        self._refuse_longer(length)
        blocks = [cast(SasrecBlock, block) for block in self.blocks]
        parts = [*(part for block in blocks for part in block.packed()), self.norm.weight, self.norm.bias]
        packed = torch.cat([part.flatten() for part in parts])
        table, positions = self.item_embedding.weight.contiguous(), self.position_rows(length).contiguous()
        # the newest step of a last block needs no projections of the others
        needs_all = len(blocks) > 1 or lengths_B is None
        items_repeat = item_ids_BL.numel() >= ITEMS_REPEAT * self.num_items
        projected = self._projected(length) if needs_all and items_repeat else None
        lengths = None if lengths_B is None else lengths_B.long().contiguous()
        out = table.new_empty(*((batch, length) if lengths is None else (batch,)), table.shape[1])
        sizes = length, blocks[0].heads[0], table.shape[1], len(blocks), NORM_EPSILON, self.scale
        weights = packed, table, positions, projected
        run("transformer", batch, *sizes, *weights, item_ids_BL.long().contiguous(), lengths, out)
        return out

    def _projected(self, length: int) -> Tensor:
        """Return the first block's bias, and what positions and items bring to q, k and v, (1 + L + V + 1, 3D).

        The norm before it is linear but for its division, which is left to the sum of a position and an item.
        """
        block = cast(SasrecBlock, self.blocks[0])
        norm, layer = block.attention_norm, block.query_key_value
        weight = layer.weight.T * norm.weight[:, None]
        positions, items = self.position_rows(length), self.item_embedding.weight
        projected = weight.new_empty(1 + length + len(items), weight.shape[1])
        projected[0] = F.linear(norm.bias, layer.weight, layer.bias)
        torch.mm(positions - positions.mean(1, keepdim=True), weight, out=projected[1 : 1 + length])
        torch.mm(items - items.mean(1, keepdim=True), weight * self.scale, out=projected[1 + length :])
        return projected

    def _refuse_longer(self, length: int) -> None:
        if length > self.max_seq_len:
            raise DataError(f"histories of length {length}, SASRec has positions for max_seq_len {self.max_seq_len}")

    def _embed(self, item_ids_BL: Tensor) -> Tensor:
        length = item_ids_BL.shape[1]
        self._refuse_longer(length)
        embedded_BLD = torch.add(self.position_rows(length), self.item_embedding(item_ids_BL), alpha=self.scale)
        dropped_BLD: Tensor = self.dropout(embedded_BLD)
        return dropped_BLD
