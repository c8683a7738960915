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
            x_LBD = at_least_float32(x_LBD)
            if torch.compiler.is_compiling():  # what is traced cannot write into views, and should be one operation
                return self._by_torch(x_LBD, self.weight_input, self.weight_hidden)
            arguments = x_LBD, self.weight_input, self.weight_hidden, torch.is_grad_enabled()
            return _Recurrence.apply(*arguments)  # type: ignore[no-any-return, no-untyped-call]

    def _on_gpu(self, x_LBD: Tensor) -> Tensor:
        dim, dtype = x_LBD.shape[2], x_LBD.dtype
        weight_input = self.weight_input.to(dtype)
        if dim <= _KERNEL_WIDTH and dtype != torch.float64 and _has_kernels(x_LBD.device):
            from glintru_model.models.gru_kernels import recurrence

            return recurrence(F.linear(x_LBD, weight_input), self.weight_hidden)
        return self._by_torch(x_LBD, weight_input, self.weight_hidden.to(dtype))

    def _by_torch(self, x_LBD: Tensor, weight_input: Tensor, weight_hidden: Tensor) -> Tensor:
        start = x_LBD.new_zeros(1, *x_LBD.shape[1:])
        weights = [weight_input, weight_hidden]
        states: Tensor = torch.gru(x_LBD, start, weights, False, 1, 0.0, self.training, False, False)[0]
        return states

    def step(self, x_BD: Tensor, hidden_BD: Tensor) -> Tensor:
        """Advance the state by one step, (B, D)."""
        with torch.autocast(x_BD.device.type, enabled=False):
            return torch.gru_cell(at_least_float32(x_BD), hidden_BD, self.weight_input, self.weight_hidden)


class _Recurrence(torch.autograd.Function):
    """A GRU over all steps: a loop over what needs the step before, the rest for all of them at once."""

    @staticmethod
    def forward(ctx: Any, x_LBD: Tensor, weight_input: Tensor, weight_hidden: Tensor, keeps_all: bool) -> Tensor:
        length, batch, dim = x_LBD.shape
        gates_LB3D = F.linear(x_LBD, weight_input)  # in the loop they become reset, update and new
        states = x_LBD.new_zeros(length + 1, batch, dim)  # states[t] is the state before step t
        # what the state brings to the new gate before the reset; the gradient needs it of every step
        hidden_part = x_LBD.new_empty(length if keeps_all else 1, batch, dim)
        hidden_parts = hidden_part.unbind(0) if keeps_all else (hidden_part[0],) * length
        to_gates, to_new = weight_hidden[: 2 * dim].T, weight_hidden[2 * dim :].T
        parts = (slice(2 * dim), slice(dim), slice(dim, 2 * dim), slice(2 * dim, None))
        gates = (gates_LB3D[..., part].unbind(0) for part in parts)  # views made at once, not in each step
        steps = zip(states[:-1].unbind(0), states[1:].unbind(0), hidden_parts, *gates, strict=True)
        for before, after, hidden, reset_update, reset, update, new in steps:
            reset_update.addmm_(before, to_gates).sigmoid_()
            torch.mm(before, to_new, out=hidden)
            new.addcmul_(hidden, reset).tanh_()
            torch.lerp(new, before, update, out=after)
        ctx.save_for_backward(x_LBD, states, gates_LB3D, hidden_part, weight_input, weight_hidden)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LBD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x_LBD, states, gates_LB3D, hidden_part, weight_input, weight_hidden = ctx.saved_tensors
        length, batch, dim = x_LBD.shape
        reset, update, new = gates_LB3D.unflatten(-1, (3, dim)).unbind(-2)
        # factors from the state's gradient to each gate's before its nonlinearity, to the new one's before the reset
        to_new = (1 - update) * (1 - new * new)
        grad_hidden = torch.empty_like(gates_LB3D).view(length, batch, 3, dim)  # in the loop it becomes the gradient
        torch.mul(hidden_part * reset, to_new, out=grad_hidden[:, :, 0]).mul_(1 - reset)
        torch.mul((states[:-1] - new) * update, 1 - update, out=grad_hidden[:, :, 1])
        torch.mul(to_new, reset, out=grad_hidden[:, :, 2])
        grad_states = torch.empty_like(grad_LBD)  # by the state after each step, through the output and later steps
        grad_states[-1] = grad_LBD[-1]
        views = (grad_hidden, grad_hidden.flatten(2), grad_states, grad_states[:, :, None], grad_LBD, update)
        gates, flat, state, state_B1D, out, updates = (view.unbind(0) for view in views)
        for t in range(length - 1, -1, -1):
            gates[t].mul_(state_B1D[t])
            if t > 0:
                torch.addcmul(out[t - 1], state[t], updates[t], out=state[t - 1]).addmm_(flat[t], weight_hidden)
        grad_gates = grad_hidden.view(length * batch, 3 * dim)
        grad_weight_hidden = grad_gates.T @ states[:-1].flatten(0, 1)
        torch.mul(grad_states, to_new, out=grad_hidden[:, :, 2])  # what the input brings is not reset
        grad_weight_input = grad_gates.T @ x_LBD.flatten(0, 1)
        return (grad_gates @ weight_input).view_as(x_LBD), grad_weight_input, grad_weight_hidden, None


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
