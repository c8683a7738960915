"""Linear attention, exact and in time linear in length; in its inputs' precision, whatever autocast says.

Shapes: B batch, H heads, L length, K head width; G = B * H. Inputs may be views with any strides.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_CHUNK = 32  # whose products stay in a cache
GPU_CHUNK = 128  # fewer and larger kernels
UNIT_EPSILON = 1e-12


def unit_norm(x: Tensor) -> Tensor:
    """Divide by the L2 norm of the last axis; a zero vector stays zero."""
    normed: Tensor = _UnitNorm.apply(x)  # type: ignore[no-untyped-call]
    return normed


def causal_linear_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, chunk_size: int = 0) -> Tensor:
    """Attend to the present and the past: row t is the sum over s <= t of (q_t . k_s) v_s / sqrt(K).

    Equals the lower triangle of the quadratic form (GLINT-RU, eq. 2, causal). Inside a chunk the product is masked;
    between chunks a (K, K) state is carried.

    Args:
        q_BHLK, k_BHLK: projections with unit norm per token.
        v_BHLK: values.
        chunk_size: steps computed together, 0 for what suits the device.

    Returns:
        (B, H, L, K), with time outermost in memory.
    """
    batch, heads, length, head_dim = q_BHLK.shape
    q, k, v = (x.reshape(batch * heads, length, head_dim) for x in (q_BHLK, k_BHLK, v_BHLK))
    chunk_size = chunk_size or (CPU_CHUNK if q.device.type == "cpu" else GPU_CHUNK)
    with torch.autocast(q.device.type, enabled=False):
        attended: Tensor = _CausalLinearAttention.apply(q, k, v, chunk_size)  # type: ignore[no-untyped-call]
    return attended.view(batch, heads, length, head_dim)


def linear_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor) -> Tensor:
    """Attend to every step: q (k^T v) / sqrt(K), as released (GLINT-RU, eq. 2).

    Args:
        q_BHLK, k_BHLK: projections with unit norm per token; k is zero at padding.
        v_BHLK: values.

    Returns:
        (B, H, L, K).
    """
    with torch.autocast(q_BHLK.device.type, enabled=False):
        attended: Tensor = q_BHLK @ (k_BHLK.mT @ v_BHLK * q_BHLK.shape[-1] ** -0.5)
    return attended


def linear_attention_newest(q_BHK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor) -> Tensor:
    """Attend from one query of each history to all its steps, (B, H, K); k is zero at padding."""
    with torch.autocast(q_BHK.device.type, enabled=False):
        return linear_attention_read(q_BHK, k_BHLK.mT @ v_BHLK)


def linear_attention_step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHK: Tensor, state_BHKK: Tensor, lost_BHKK: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend from the newest step of a causal history; returns its (B, H, K), the next state, and what it lost.

    What rounding loses of thousands of additions is carried along (Kahan's sum); otherwise two blocks in float32 are
    off by 4e-4 after 6,000 steps.
    """
    added_BHKK = torch.addcmul(lost_BHKK, k_BHK[..., :, None], v_BHK[..., None, :])
    total_BHKK = state_BHKK + added_BHKK
    return linear_attention_read(q_BHK, total_BHKK), total_BHKK, added_BHKK - (total_BHKK - state_BHKK)


def linear_attention_read(q_BHK: Tensor, state_BHKK: Tensor) -> Tensor:
    """Attend from one query to the sum of k v^T over a history."""
    attended: Tensor = (q_BHK * q_BHK.shape[-1] ** -0.5)[..., None, :] @ state_BHKK
    return attended.squeeze(-2)


class _UnitNorm(torch.autograd.Function):
    """`unit_norm` with a backward of its own: half the passes over memory that its parts would take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inverse = x.square().sum(-1, keepdim=True).add_(UNIT_EPSILON).rsqrt_()
        normed = x * inverse
        ctx.save_for_backward(normed, inverse)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        normed, inverse = ctx.saved_tensors
        along = (grad * normed).sum(-1, keepdim=True)
        return torch.addcmul(grad, normed, along, value=-1).mul_(inverse)


class _CausalLinearAttention(torch.autograd.Function):
    """Keeps one state a chunk, and computes the products of a chunk again going back."""

    @staticmethod
    def forward(ctx: Any, q_GLK: Tensor, k_GLK: Tensor, v_GLK: Tensor, chunk_size: int) -> Tensor:
        groups, length, head_dim = q_GLK.shape
        scale = head_dim**-0.5
        starts = range(0, length, chunk_size)
        states = q_GLK.new_zeros(len(starts) + 1, groups, head_dim, head_dim)  # states[c]: before chunk c
        out_GLK = _time_first(q_GLK)
        for chunk, start in enumerate(starts):
            q, k, v, out = (x[:, start : start + chunk_size] for x in (q_GLK, k_GLK, v_GLK, out_GLK))
            within = torch.bmm(torch.bmm(q, k.mT).tril_(), v)
            out.copy_(within.baddbmm_(q, states[chunk], beta=scale, alpha=scale))
            torch.baddbmm(states[chunk], k.mT, v, out=states[chunk + 1])
        ctx.save_for_backward(q_GLK, k_GLK, v_GLK, states)
        ctx.chunk_size = chunk_size
        return out_GLK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_GLK: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_GLK, k_GLK, v_GLK, states = ctx.saved_tensors
        grads = _time_first(q_GLK), _time_first(q_GLK), _time_first(q_GLK)
        scale = q_GLK.shape[2] ** -0.5
        grad_state = torch.zeros_like(states[0])  # of the state after the chunk at hand
        for chunk in range(len(states) - 2, -1, -1):
            rows = slice(chunk * ctx.chunk_size, (chunk + 1) * ctx.chunk_size)
            q, k, v, grad = q_GLK[:, rows], k_GLK[:, rows], v_GLK[:, rows], grad_GLK[:, rows] * scale
            grad_weights = torch.bmm(grad, v.mT).tril_()
            grad_q = torch.bmm(grad_weights, k).baddbmm_(grad, states[chunk].mT)
            grad_k = torch.bmm(grad_weights.mT, q).baddbmm_(v, grad_state.mT)
            grad_v = torch.bmm(torch.bmm(q, k.mT).tril_().mT, grad).baddbmm_(k, grad_state)
            for whole, part in zip(grads, (grad_q, grad_k, grad_v), strict=True):
                whole[:, rows] = part
            grad_state.baddbmm_(q.mT, grad)
        return *grads, None


def _time_first(like_GLK: Tensor) -> Tensor:
    groups, length, head_dim = like_GLK.shape
    return like_GLK.new_empty(length, groups, head_dim).transpose(0, 1)
