"""Both attentions with their gradients, by the kernels.

Shapes: B batch, H heads, L length, K head width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glintru_model.models.cpu_kernels.compiled import run


def causal_softmax_attention(qkv_BL3HK: Tensor) -> Tensor:
    """Attend to the present and the past, (B, L, H, K): softmax(q k^T / sqrt(K)) v; keeps no weights."""
    attended: Tensor = _SoftmaxAttention.apply(qkv_BL3HK)  # type: ignore[no-untyped-call]
    return attended


def causal_linear_attention(projected_LB3HK: Tensor, epsilon: float) -> Tensor:
    """Attend to the present and the past, (L, B, H, K), without softmax (GLINT-RU, eq. 2, causal).

    Args:
        projected_LB3HK: queries, keys and values, as the projections give them; the first two go through ELU and are
            divided by their L2 norm here.
        epsilon: added to a squared norm.
    """
    attended: Tensor = _LinearAttention.apply(projected_LB3HK, epsilon)  # type: ignore[no-untyped-call]
    return attended


class _SoftmaxAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor) -> Tensor:
        qkv = qkv.contiguous()
        batch, length, _, heads, head_dim = ctx.sizes = qkv.shape
        out, norms = qkv.new_empty(batch, length, heads, head_dim), qkv.new_empty(batch, heads, 2, length)
        run("softmax_attention_forward", batch, length, heads, head_dim, qkv, out, norms)
        ctx.save_for_backward(qkv, out, norms)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        qkv, out, norms = ctx.saved_tensors
        batch, length, _, heads, head_dim = ctx.sizes
        grad, grad_qkv = grad.contiguous(), torch.empty_like(qkv)
        run("softmax_attention_backward", batch, length, heads, head_dim, qkv, out, norms, grad, grad_qkv)
        return grad_qkv


class _LinearAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, epsilon: float) -> Tensor:
        projected = projected.contiguous()
        length, batch, _, heads, head_dim = projected.shape
        ctx.sizes = length, batch, heads, head_dim, epsilon
        out = projected.new_empty(length, batch, heads, head_dim)
        run("linear_attention_forward", batch, *ctx.sizes, projected, out)
        ctx.save_for_backward(projected)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (projected,) = ctx.saved_tensors
        grad, grad_projected = grad.contiguous(), torch.empty_like(projected)
        run("linear_attention_backward", ctx.sizes[1], *ctx.sizes, projected, grad, grad_projected)
        return grad_projected, None
