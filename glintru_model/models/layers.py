"""Layers that the models are made of, written so that they are fast on a CPU as well as on a GPU.

Shapes: L length, B batch, D width, J input width of a layer. Recurrent models compute time first (L, B, D): a step,
a shift in time and the input of a matrix product are then contiguous views.
"""

import os
import shutil
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glintru_model.progress import say

_UINT16 = 1 << 16
_KERNEL_WIDTH = 64  # three squares of it are what a program's registers hold
_TF32_CAPABILITY = (8, 0)  # Ampere


class Dropout(nn.Module):
    """Dropout that draws 16 random bits an element on the CPU, several times faster there than torch's own.

    The rate is met to 1/65,536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements at random while training and scale the others up."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        dropped = max(1, round(self.rate * _UINT16))
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        keep = torch.ge(bits, dropped - _UINT16 // 2, out=torch.empty(x.shape, dtype=x.dtype))
        return x * keep.mul_(_UINT16 / (_UINT16 - dropped))


def at_least_float32(x: Tensor) -> Tensor:
    """Widen a half-precision tensor."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def linear(dim_in: int, dim_out: int) -> nn.Linear:
    """Build a linear layer with zero bias and Xavier weights.

    Several projections of one input may share a layer: the scale is that of a single (dim_in, dim_in) projection
    where dim_out is a multiple of dim_in.
    """
    layer = nn.Linear(dim_in, dim_out)
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
        padded = F.pad(x_LBD.to(dtype), (0, 0, 0, 0, self.before, self.after))
        return _Convolution.apply(padded, self.weight.to(dtype), self.bias.to(dtype))  # type: ignore[no-any-return, no-untyped-call]

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
    """One matrix product per tap, summed in place, forward and backward."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(padded, weight)
        length = padded.shape[0] - weight.shape[0] + 1
        out = torch.addmm(bias, padded[:length].flatten(0, 1), weight[0].T)
        for tap in range(1, weight.shape[0]):
            out.addmm_(padded[tap : tap + length].flatten(0, 1), weight[tap].T)
        return out.view(length, *padded.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        padded, weight = ctx.saved_tensors
        length = grad_LBD.shape[0]
        grad = grad_LBD.flatten(0, 1)
        grad_padded, grad_weight = torch.zeros_like(padded), torch.empty_like(weight)
        for tap in range(weight.shape[0]):
            grad_padded[tap : tap + length].flatten(0, 1).addmm_(grad, weight[tap])
            torch.mm(grad.T, padded[tap : tap + length].flatten(0, 1), out=grad_weight[tap])
        return grad_padded, grad_weight, grad.sum(0)


class GRU(nn.Module):
    """Gated recurrent unit without biases, as torch.nn.GRU computes it.

    On the CPU the backward pass gathers each weight's gradient in one product over all steps. On a GPU a kernel of
    this package goes through time up to a width of 64, cuDNN beyond.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight_input = nn.Parameter(torch.empty(3 * dim, dim))  # reset, update, new
        self.weight_hidden = nn.Parameter(torch.empty(3 * dim, dim))
        nn.init.xavier_uniform_(self.weight_input)
        nn.init.xavier_uniform_(self.weight_hidden)

    def forward(self, x_LBD: Tensor) -> Tensor:
        """Run from a zero state; returns the state after each step, (L, B, D)."""
        if x_LBD.device.type != "cpu":
            return self._on_gpu(x_LBD)
        with torch.autocast("cpu", enabled=False):
            gates = F.linear(at_least_float32(x_LBD), self.weight_input)
            return _Recurrence.apply(gates, self.weight_hidden, torch.is_grad_enabled())  # type: ignore[no-any-return, no-untyped-call]

    def _on_gpu(self, x_LBD: Tensor) -> Tensor:
        dim, dtype = x_LBD.shape[2], x_LBD.dtype
        weight_input = self.weight_input.to(dtype)
        if dim <= _KERNEL_WIDTH and dtype != torch.float64 and _has_kernels(x_LBD.device):
            from glintru_model.models.gru_kernels import recurrence

            return recurrence(F.linear(x_LBD, weight_input), self.weight_hidden)
        weights = [weight_input, self.weight_hidden.to(dtype)]
        start = x_LBD.new_zeros(1, x_LBD.shape[1], dim)
        states: Tensor = torch.gru(x_LBD, start, weights, False, 1, 0.0, self.training, False, False)[0]
        return states

    def step(self, x_BD: Tensor, hidden_BD: Tensor) -> Tensor:
        """Advance the state by one step, (B, D)."""
        with torch.autocast(x_BD.device.type, enabled=False):
            return torch.gru_cell(at_least_float32(x_BD), hidden_BD, self.weight_input, self.weight_hidden)


class _Recurrence(torch.autograd.Function):
    """The part of a GRU that cannot be done for all steps at once."""

    @staticmethod
    def forward(ctx: Any, gates_LB3D: Tensor, weight: Tensor, keeps_all: bool) -> Tensor:
        length, batch, width = gates_LB3D.shape
        dim = width // 3
        kept = length if keeps_all else 1  # steps, for the gradient
        states = gates_LB3D.new_zeros(length + 1, batch, dim)  # states[t] is the state before step t
        reset_update = gates_LB3D.new_empty(kept, batch, 2 * dim)
        new = gates_LB3D.new_empty(kept, batch, dim)
        hidden_part = gates_LB3D.new_empty(kept, batch, dim)  # of the new gate, before the reset
        to_gates, to_new = weight[: 2 * dim].T, weight[2 * dim :].T
        for t in range(length):
            at = t % kept
            step_gates = torch.addmm(gates_LB3D[t, :, : 2 * dim], states[t], to_gates, out=reset_update[at]).sigmoid_()
            torch.mm(states[t], to_new, out=hidden_part[at])
            candidate = torch.addcmul(gates_LB3D[t, :, 2 * dim :], hidden_part[at], step_gates[:, :dim], out=new[at])
            candidate.tanh_()
            torch.lerp(candidate, states[t], step_gates[:, dim:], out=states[t + 1])
        ctx.save_for_backward(states, reset_update, new, hidden_part, weight)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LBD: Tensor) -> tuple[Tensor, Tensor, None]:
        states, reset_update, new, hidden_part, weight = ctx.saved_tensors
        length, batch, dim = new.shape
        reset, update = reset_update[..., :dim], reset_update[..., dim:]
        # what a unit of the state's gradient does to each gate before its nonlinearity
        to_new = (1 - update) * (1 - new * new)
        to_update = (states[:-1] - new) * update * (1 - update)
        to_reset = hidden_part * reset * (1 - reset)
        grad_gates = grad_LBD.new_empty(length, batch, 3 * dim)
        grad_hidden = grad_LBD.new_empty(length, batch, 3 * dim)  # differs from grad_gates in the new gate alone
        carried = grad_LBD.new_zeros(batch, dim)
        for t in range(length - 1, -1, -1):
            carried += grad_LBD[t]
            step, step_hidden = grad_gates[t], grad_hidden[t]
            torch.mul(carried, to_new[t], out=step[:, 2 * dim :])
            torch.mul(carried, to_update[t], out=step_hidden[:, dim : 2 * dim])
            torch.mul(step[:, 2 * dim :], to_reset[t], out=step_hidden[:, :dim])
            torch.mul(step[:, 2 * dim :], reset[t], out=step_hidden[:, 2 * dim :])
            carried.mul_(update[t]).addmm_(step_hidden, weight)
        grad_gates[..., : 2 * dim] = grad_hidden[..., : 2 * dim]
        grad_weight = grad_hidden.flatten(0, 1).T @ states[:-1].flatten(0, 1)
        return grad_gates, grad_weight, None


def _has_kernels(device: torch.device) -> bool:
    """Tell whether Triton is here, as in torch's CUDA builds for Linux, and the device has TF32 products."""
    return _has_triton() and torch.cuda.get_device_capability(device) >= _TF32_CAPABILITY


@cache
def _has_triton() -> bool:
    if torch.version.cuda is None or find_spec("triton") is None:
        return False
    if any(map(shutil.which, ("gcc", "clang"))) or "CC" in os.environ:  # Triton builds its launcher with it
        return True
    say("no C compiler (gcc, clang or CC) is found, which Triton needs: the GRU runs on cuDNN, which is slower")
    return False


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
