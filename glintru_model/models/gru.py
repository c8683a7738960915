"""The gated recurrent unit, as one loop over time on whatever is fastest for it.

Shapes: L length, B batch, D width. Time comes first, so that a step is a contiguous view.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glintru_model.models.cpu_kernels.compiled import can_run, run
from glintru_model.models.gpu import has_kernels
from glintru_model.models.layers import at_least_float32

_KERNEL_WIDTH = 64  # three squares of it are what a program's registers hold


class GRU(nn.Module):
    """Gated recurrent unit without biases, as torch.nn.GRU computes it.

    On the CPU the backward pass gathers each weight's gradient in one product over all steps, and a kernel of this
    package goes through time where it can. So does one on a GPU up to a width of 64, cuDNN beyond.
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
            recurrence = _RecurrenceByKernel if can_run(x_LBD, x_LBD.shape[2]) else _Recurrence
            keeps_all = torch.is_grad_enabled()
            return recurrence.apply(x_LBD, self.weight_input, self.weight_hidden, keeps_all)  # type: ignore[no-any-return, no-untyped-call]

    def _on_gpu(self, x_LBD: Tensor) -> Tensor:
        dim, dtype = x_LBD.shape[2], x_LBD.dtype
        weight_input = self.weight_input.to(dtype)
        if dim <= _KERNEL_WIDTH and dtype != torch.float64 and has_kernels(x_LBD.device):
            from glintru_model.models.gru_triton import recurrence

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
        grad_gates = grad_hidden.view(length, batch, 3 * dim)
        return *_weights_backward(grad_gates, grad_states.mul_(to_new), x_LBD, states, weight_input), None


class _RecurrenceByKernel(torch.autograd.Function):
    """The same, with the loops in C."""

    @staticmethod
    def forward(ctx: Any, x_LBD: Tensor, weight_input: Tensor, weight_hidden: Tensor, keeps_all: bool) -> Tensor:
        length, batch, dim = x_LBD.shape
        gates_LB3D = F.linear(x_LBD, weight_input).contiguous()
        states = x_LBD.new_zeros(length + 1, batch, dim)
        hidden_part = x_LBD.new_empty(x_LBD.shape) if keeps_all else None
        weight = weight_hidden.T.contiguous()
        run("recurrence_forward", batch, length, batch, dim, weight, gates_LB3D, states, hidden_part)
        ctx.save_for_backward(x_LBD, states, gates_LB3D, hidden_part, weight_input, weight_hidden)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LBD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x_LBD, states, gates_LB3D, hidden_part, weight_input, weight_hidden = ctx.saved_tensors
        length, batch, dim = x_LBD.shape
        grad_gates, grad_new = torch.empty_like(gates_LB3D), torch.empty_like(hidden_part)
        saved = weight_hidden.contiguous(), gates_LB3D, states, hidden_part, grad_LBD.contiguous()
        run("recurrence_backward", batch, length, batch, dim, *saved, grad_gates, grad_new)
        return *_weights_backward(grad_gates, grad_new, x_LBD, states, weight_input), None


def _weights_backward(
    grad_gates: Tensor, grad_new: Tensor, x_LBD: Tensor, states: Tensor, weight_input: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by x and both weights from those by the gates (L, B, 3D), which are changed.

    The gates' are those by what the state brings, of the new gate before the reset; grad_new, (L, B, D), is by what the
    input brings to the new gate, which is not reset.
    """
    dim = x_LBD.shape[2]
    grad = grad_gates.view(-1, 3 * dim)
    grad_weight_hidden = (states[:-1].flatten(0, 1).T @ grad).T  # faster than the product of both as they are
    grad_gates[..., 2 * dim :] = grad_new
    grad_weight_input = (x_LBD.flatten(0, 1).T @ grad).T
    return (grad @ weight_input).view_as(x_LBD), grad_weight_input, grad_weight_hidden
