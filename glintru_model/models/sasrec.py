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
        if self._has_kernel(x_BLD):
            return self._by_kernel(x_BLD, x_BLD.new_empty(x_BLD.shape), None)
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
        if self._has_kernel(x_BLD):
            return self._by_kernel(x_BLD, x_BLD.new_empty(len(x_BLD), x_BLD.shape[2]), lengths_B)
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

    def _has_kernel(self, x: Tensor) -> bool:
        """Tell whether the whole block is one: it has neither gradient nor dropout, nor autocast's precision."""
        drops = self.dropout.training and self.dropout.rate > 0
        is_inference = not (drops or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        return is_inference and can_run(x, self.heads[1], x.shape[-1])

    def _by_kernel(self, x_BLD: Tensor, out: Tensor, lengths_B: Tensor | None) -> Tensor:
        """Fill `out` with every step, (B, L, D), or with each newest one, (B, D)."""
        batch, length, dim = x_BLD.shape
        linears = self.query_key_value, self.output, self.network_in, self.network_out
        norms = [part for norm in (self.attention_norm, self.network_norm) for part in (norm.weight, norm.bias)]
        parts = [*(layer.weight.T for layer in linears), *(layer.bias for layer in linears), *norms]
        packed = torch.cat([part.flatten() for part in parts])  # as transformer_block.c takes them apart
        lengths = lengths_B.long().contiguous() if lengths_B is not None else None
        sizes = batch, length, self.heads[0], dim, NORM_EPSILON
        run("transformer_block", *sizes, packed, lengths, x_BLD.contiguous(), out)
        return out

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
        x_BLD = self._embed(item_ids_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD)  # right padding is out of the sight of a causal position
        out_BLD: Tensor = self.norm(x_BLD)
        return out_BLD

    def newest(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BD; of the last block only what the newest position needs (errors as `forward`)."""
        x_BLD = self._embed(item_ids_BL)
        *lower, last = self.blocks
        for block in lower:
            x_BLD = block(x_BLD)
        hidden_BD: Tensor = self.norm(cast(SasrecBlock, last).newest(x_BLD, lengths_B))
        return hidden_BD

    def position_rows(self, length: int) -> Tensor:
        """Return the embedding of each step's position, (L, D)."""
        return self.positions.weight[:length]

    def _embed(self, item_ids_BL: Tensor) -> Tensor:
        length = item_ids_BL.shape[1]
        if length > self.max_seq_len:
            raise DataError(f"histories of length {length}, SASRec has positions for max_seq_len {self.max_seq_len}")
        embedded_BLD = torch.add(self.position_rows(length), self.item_embedding(item_ids_BL), alpha=self.scale)
        dropped_BLD: Tensor = self.dropout(embedded_BLD)
        return dropped_BLD
