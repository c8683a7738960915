"""Dropout and GELU gates with their gradients, by the kernels: each is one pass over memory.

Shapes: D width, a multiple of 16; other axes come before it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glintru_model.models.cpu_kernels.compiled import run

_WORDS = 1 << 32


def dropout(x: Tensor, rate: float, residual: Tensor | None = None) -> Tensor:
    """Zero elements of x, (..., D), at random, scale the others up, and add the residual, if any; keeps no mask.

    The rate, in (0, 1), is met to 1e-9. Which elements are dropped follows from one draw of torch's generator.
    """
    dropped: Tensor = _Dropout.apply(x, rate, residual)  # type: ignore[no-untyped-call]
    return dropped


def gelu_gate(value_and_gate: Tensor) -> Tensor:
    """Multiply the first half of the last axis, (..., 2 D), by GELU of the second."""
    gated: Tensor = _Gate.apply(value_and_gate)  # type: ignore[no-untyped-call]
    return gated


def mixed_gelu_gate(first: Tensor, second: Tensor, weights_2: Tensor, gate: Tensor) -> Tensor:
    """Return (weights[0] first + weights[1] second) * gelu(gate), of three tensors (..., D)."""
    gated: Tensor = _MixedGate.apply(first, second, weights_2, gate)  # type: ignore[no-untyped-call]
    return gated


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, residual: Tensor | None) -> Tensor:
        ctx.settings = int(torch.randint(1 << 62, ())), min(max(1, round(rate * _WORDS)), _WORDS - 1), 1 / (1 - rate)
        ctx.has_residual = residual is not None
        return _dropped(x, ctx.settings, residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor | None]:
        return _dropped(grad, ctx.settings, None), None, grad if ctx.has_residual else None


def _dropped(x: Tensor, settings: tuple[int, int, float], residual: Tensor | None) -> Tensor:
    x, out = x.contiguous(), x.new_empty(x.shape)
    residual = residual.contiguous() if residual is not None else None
    run("dropout", x.numel() // x.shape[-1], x.shape[-1], *settings, x, residual, out)
    return out


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value_and_gate: Tensor) -> Tensor:
        both = value_and_gate.contiguous()
        ctx.save_for_backward(both)
        value, gate = both.chunk(2, dim=-1)
        out = both.new_empty(value.shape)
        rows, dim = out.numel() // out.shape[-1], out.shape[-1]
        run("gate_forward", rows, dim, 2 * dim, value, None, None, gate, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        (value, gate), grad = both.chunk(2, dim=-1), grad.contiguous()
        grad_both = torch.empty_like(both)
        grad_value, grad_gate = grad_both.chunk(2, dim=-1)
        rows, dim = grad.numel() // grad.shape[-1], grad.shape[-1]
        inputs = value, None, None, gate, grad
        run("gate_backward", rows, dim, 2 * dim, *inputs, grad_value, None, grad_gate, None)
        return grad_both


class _MixedGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, weights_2: Tensor, gate: Tensor) -> Tensor:
        inputs = first.contiguous(), second.contiguous(), weights_2.contiguous(), gate.contiguous()
        ctx.save_for_backward(*inputs)
        out, dim = first.new_empty(first.shape), first.shape[-1]
        run("gate_forward", out.numel() // dim, dim, dim, *inputs, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs, grad, dim = ctx.saved_tensors, grad.contiguous(), grad.shape[-1]
        rows = grad.numel() // dim
        grad_first, grad_second, grad_gate = (grad.new_empty(grad.shape) for _ in range(3))
        grad_weights = grad.new_empty(rows, 2)
        run("gate_backward", rows, dim, dim, *inputs, grad, grad_first, grad_second, grad_gate, grad_weights)
        return grad_first, grad_second, grad_weights.sum(0), grad_gate
