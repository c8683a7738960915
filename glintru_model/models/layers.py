"""Layers that the models are made of, written so that they are fast on a CPU as well as on a GPU.

Shapes: L length, B batch, D width, J input width of a layer. Recurrent models compute time first (L, B, D): a step,
a shift in time and the input of a matrix product are then contiguous views.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glintru_model.models.cpu_kernels import elementwise as cpu_kernels
from glintru_model.models.cpu_kernels.compiled import can_run, is_like

_UINT16 = 1 << 16


class Dropout(nn.Module):
    """Dropout that is several times faster on a CPU than torch's own: by a kernel, or by 16 random bits an element.

    The rate is met to 1/65,536 at least.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Zero elements of x at random while training and scale the others up; then add the residual, if any."""
        if not self.training or self.rate == 0:
            return x if residual is None else x + residual
        if can_run(x, x.shape[-1]) and (residual is None or is_like(residual, x)):
            return cpu_kernels.dropout(x, self.rate, residual)
        dropped = self._by_bits(x) if x.device.type == "cpu" else F.dropout(x, self.rate)
        return dropped if residual is None else dropped + residual

    def _by_bits(self, x: Tensor) -> Tensor:
        dropped = max(1, round(self.rate * _UINT16))
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        keep = torch.ge(bits, dropped - _UINT16 // 2, out=torch.empty(x.shape, dtype=x.dtype))
        return x * keep.mul_(_UINT16 / (_UINT16 - dropped))


def at_least_float32(x: Tensor) -> Tensor:
    """Widen a half-precision tensor."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def gelu_gate(value_and_gate: Tensor) -> Tensor:
    """Multiply the first half of the last axis, (..., 2 D), by GELU of the second."""
    if value_and_gate.shape[-1] % 2 == 0 and can_run(value_and_gate, value_and_gate.shape[-1] // 2):
        return cpu_kernels.gelu_gate(value_and_gate)
    value, gate = value_and_gate.chunk(2, dim=-1)
    return value * F.gelu(gate)


def mixed_gelu_gate(first: Tensor, second: Tensor, weights_2: Tensor, gate: Tensor) -> Tensor:
    """Return (weights[0] first + weights[1] second) * gelu(gate), of three tensors (..., D)."""
    if can_run(first, first.shape[-1]) and is_like(second, first) and is_like(gate, first):
        return cpu_kernels.mixed_gelu_gate(first, second, weights_2, gate)
    return (weights_2[0] * first + weights_2[1] * second) * F.gelu(gate)


class Linear(nn.Linear):
    """torch.nn.Linear, whose products on a CPU take a quarter less time in training than torch's choice of them."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b, (..., D)."""
        if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]


class _Linear(torch.autograd.Function):
    """Adds the bias to a product, not a product to the bias; computes the weight's gradient as its transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows, grad_rows = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        return grad @ weight, (rows.T @ grad_rows).T, grad_rows.sum(0)


def linear(dim_in: int, dim_out: int) -> Linear:
    """Build a linear layer with zero bias and Xavier weights.

    Several projections of one input may share a layer: the scale is that of a single (dim_in, dim_in) projection
    where dim_out is a multiple of dim_in.
    """
    layer = Linear(dim_in, dim_out)
    fan_out = dim_in if dim_out % dim_in == 0 else dim_out
    bound = (6 / (dim_in + fan_out)) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer


class TemporalConv(nn.Module):
    """Dense convolution over time that keeps the length.

    `causal` pads on the left, so that step t sees steps up to t; else step t is in the middle of its window.
    """

    def __init__(self, dim: int, kernel_size: int, *, causal: bool) -> None:
        super().__init__()
        self.before = kernel_size - 1 if causal else kernel_size // 2
        self.after = kernel_size - 1 - self.before
        bound = (dim * kernel_size) ** -0.5
        self.weight = nn.Parameter(torch.empty(kernel_size, dim, dim).uniform_(-bound, bound))  # (tap, out, in)
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))

    def forward(self, x_LBD: Tensor) -> Tensor:
        """Convolve along the first axis; x is 0 at padding."""
        dtype = _compute_dtype(x_LBD)
        convolved: Tensor = _Convolution.apply(x_LBD.to(dtype), self.weight.to(dtype), self.bias.to(dtype), self.before)  # type: ignore[no-untyped-call]
        return convolved

    def step(self, x_BD: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve the newest step of a causal convolution.

        Args:
            x_BD: the new step.
            window: the kernel_size - 1 steps before it, (kernel_size - 1, B, D).

        Returns:
            The step's output, (B, D), and the window of the next step.
        """
        taps = torch.cat([window, x_BD[None]])
        return self.newest(taps), taps[1:]

    def newest(self, taps: Tensor) -> Tensor:
        """Convolve where nothing comes after: taps are the `before` steps and the step itself, (before + 1, N, D)."""
        return torch.bmm(taps, self.weight[: len(taps)].mT).sum(0) + self.bias

    def by_sight(self, x_LBD: Tensor) -> list[Tensor]:
        """Convolve as if each step had 0, 1, ... `after` steps behind it: a list of (L, B, D)."""
        length = len(x_LBD)
        padded = F.pad(x_LBD, (0, 0, 0, 0, self.before, self.after))
        out: Tensor = self.bias
        by_sight: list[Tensor] = []
        for tap, weight in enumerate(self.weight):
            out = out + F.linear(padded[tap : tap + length], weight)
            if tap >= self.before:
                by_sight.append(out)
        return by_sight


class _Convolution(torch.autograd.Function):
    """One matrix product per tap, summed in place, forward and backward; what lies outside is 0 and left out."""

    @staticmethod
    def forward(ctx: Any, x_LBD: Tensor, weight: Tensor, bias: Tensor, before: int) -> Tensor:
        ctx.save_for_backward(x_LBD, weight)
        ctx.before = before
        out_LBD = torch.addmm(bias, x_LBD.flatten(0, 1), weight[before].T).view(x_LBD.shape)
        for tap, seen, seeing in _shifts(x_LBD, out_LBD, len(weight), before):
            if tap != before:
                seeing.addmm_(seen, weight[tap].T)
        return out_LBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LBD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x_LBD, weight = ctx.saved_tensors
        grad_LBD = grad_LBD.contiguous()
        grad = grad_LBD.flatten(0, 1)
        grad_x, grad_weight = torch.mm(grad, weight[ctx.before]).view(x_LBD.shape), torch.empty_like(weight)
        for tap, seen, seeing in _shifts(x_LBD, grad_LBD, len(weight), ctx.before):
            torch.mm(seeing.T, seen, out=grad_weight[tap])
        for tap, seen, seeing in _shifts(grad_x, grad_LBD, len(weight), ctx.before):
            if tap != ctx.before:
                seen.addmm_(seeing, weight[tap])
        return grad_x, grad_weight, grad.sum(0), None


def _shifts(x_LBD: Tensor, out_LBD: Tensor, taps: int, before: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each tap, the steps of x that steps of the output see through it, and those; both (steps * B, D)."""
    length = len(x_LBD)
    for tap in range(taps):
        back = before - tap
        seen, seeing = x_LBD[max(0, -back) : max(0, length - back)], out_LBD[max(0, back) : max(0, length + back)]
        yield tap, seen.flatten(0, 1), seeing.flatten(0, 1)


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
