"""The recurrence of a GRU on a GPU: one kernel for all steps, where cuDNN starts several for each.

A program takes `ROWS` histories through time with the weights at hand. Products are TF32 where torch's are, else three
TF32 products stand for one of float32; state and sums are float32.

Shapes: L length, B batch, D width. Gates stand in the order reset, update, new, as in `torch.nn.GRU`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 16  # the least that a matrix product takes
_SIZES = ["length", "batch"]  # every batch has others: compiled once for all


def recurrence(gates_LB3D: Tensor, weight: Tensor) -> Tensor:
    """Run a GRU without biases from a zero state.

    Args:
        gates_LB3D: what the inputs add to each gate, float32 or narrower.
        weight: of the state, float32, (3D, D), D at most 64.

    Returns:
        The state after each step, float32, (L, B, D).
    """
    states_LBD: Tensor = _Recurrence.apply(gates_LB3D, weight)  # type: ignore[no-untyped-call]
    return states_LBD


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates_LB3D: Tensor, weight: Tensor) -> Tensor:
        length, batch, width = gates_LB3D.shape
        dim = width // 3
        states = torch.empty(length + 1, batch, dim, device=weight.device)  # states[t] is the state before step t
        states[0].zero_()
        kept = torch.empty(4, length, batch, dim, device=weight.device)  # reset, update, new, its hidden part
        ctx.grid, ctx.constants = (triton.cdiv(batch, ROWS),), _constants(dim)
        with torch.cuda.device(weight.device):
            _forward[ctx.grid](gates_LB3D.contiguous(), weight, states, kept, length, batch, **ctx.constants)
        ctx.save_for_backward(states, kept, weight)
        ctx.gates_dtype = gates_LB3D.dtype
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_LBD: Tensor) -> tuple[Tensor, Tensor]:
        states, kept, weight = ctx.saved_tensors
        _, length, batch, dim = kept.shape
        grad_gates = torch.empty(length, batch, 3 * dim, device=weight.device)
        with torch.cuda.device(weight.device):
            _backward[ctx.grid](grad_LBD.contiguous(), weight, states, kept, grad_gates, length, batch, **ctx.constants)
        before, by_gates = states[:-1].flatten(0, 1), grad_gates.flatten(0, 1)
        grad_weight = torch.empty_like(weight)
        torch.mm(by_gates[:, : 2 * dim].T, before, out=grad_weight[: 2 * dim])
        by_hidden_part = by_gates[:, 2 * dim :] * kept[0].flatten(0, 1)
        torch.mm(by_hidden_part.T, before, out=grad_weight[2 * dim :])
        return grad_gates.to(ctx.gates_dtype), grad_weight


def _constants(dim: int) -> dict[str, Any]:
    exact = torch.get_float32_matmul_precision() == "highest"
    return {
        "DIM": dim,
        "WIDTH": max(16, triton.next_power_of_2(dim)),
        "ROWS": ROWS,
        "PRECISION": "tf32x3" if exact else "tf32",
    }


@triton.jit(do_not_specialize=_SIZES)
def _forward(  # type: ignore[no-untyped-def]
    gates, weight, states, kept, length, batch,
    DIM: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (rows[:, None] < batch) & (columns[None, :] < DIM)
    to_reset, to_update, to_new = _weights(weight, columns[None, :] * DIM + columns[:, None], columns, DIM)
    at_gates, at = rows[:, None] * (3 * DIM) + columns[None, :], rows[:, None] * DIM + columns[None, :]
    step, part = batch * DIM, (length * batch).to(tl.int64) * DIM
    states += step
    # a step's gates are asked for a step ahead
    next_reset, next_update, next_new = _gates(gates, at_gates, inside, DIM)
    state = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for t in range(length):
        gate_reset, gate_update, gate_new = next_reset, next_update, next_new
        gates += 3 * step
        next_reset, next_update, next_new = _gates(gates, at_gates, inside & (t + 1 < length), DIM)
        reset = tl.sigmoid(gate_reset + tl.dot(state, to_reset, input_precision=PRECISION))
        update = tl.sigmoid(gate_update + tl.dot(state, to_update, input_precision=PRECISION))
        hidden_part = tl.dot(state, to_new, input_precision=PRECISION)
        new = 2 * tl.sigmoid(2 * (gate_new + reset * hidden_part)) - 1  # tanh
        state = new + update * (state - new)
        tl.store(kept + at, reset, mask=inside)
        tl.store(kept + part + at, update, mask=inside)
        tl.store(kept + 2 * part + at, new, mask=inside)
        tl.store(kept + 3 * part + at, hidden_part, mask=inside)
        tl.store(states + at, state, mask=inside)
        kept += step
        states += step


@triton.jit(do_not_specialize=_SIZES)
def _backward(  # type: ignore[no-untyped-def]
    grad, weight, states, kept, grad_gates, length, batch,
    DIM: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (rows[:, None] < batch) & (columns[None, :] < DIM)
    by_reset, by_update, by_new = _weights(weight, columns[:, None] * DIM + columns[None, :], columns, DIM)
    at_gates, at = rows[:, None] * (3 * DIM) + columns[None, :], rows[:, None] * DIM + columns[None, :]
    step, part = batch * DIM, (length * batch).to(tl.int64) * DIM
    last = (length - 1).to(tl.int64) * step
    grad, states, kept, grad_gates = grad + last, states + last, kept + last, grad_gates + 3 * last
    next_grad, next_before, next_reset, next_update, next_new, next_hidden = _step(grad, states, kept, part, at, inside)
    carried = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for t in range(length):
        carried += next_grad
        before, reset, update, new, hidden_part = next_before, next_reset, next_update, next_new, next_hidden
        grad, states, kept = grad - step, states - step, kept - step
        next_grad, next_before, next_reset, next_update, next_new, next_hidden = _step(
            grad, states, kept, part, at, inside & (t + 1 < length)
        )
        grad_new = carried * (1 - update) * (1 - new * new)
        grad_update = carried * (before - new) * update * (1 - update)
        grad_reset = grad_new * hidden_part * reset * (1 - reset)
        tl.store(grad_gates + at_gates, grad_reset, mask=inside)
        tl.store(grad_gates + at_gates + DIM, grad_update, mask=inside)
        tl.store(grad_gates + at_gates + 2 * DIM, grad_new, mask=inside)
        grad_gates -= 3 * step
        carried *= update
        carried += tl.dot(grad_reset, by_reset, input_precision=PRECISION)
        carried += tl.dot(grad_update, by_update, input_precision=PRECISION)
        carried += tl.dot(grad_new * reset, by_new, input_precision=PRECISION)


@triton.jit
def _weights(weight, at, columns, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    inside = (columns[:, None] < DIM) & (columns[None, :] < DIM)
    reset = tl.load(weight + at, mask=inside, other=0.0)
    update = tl.load(weight + DIM * DIM + at, mask=inside, other=0.0)
    new = tl.load(weight + 2 * DIM * DIM + at, mask=inside, other=0.0)
    return reset, update, new


@triton.jit
def _gates(gates, at, inside, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    reset = tl.load(gates + at, mask=inside, other=0.0).to(tl.float32)
    update = tl.load(gates + at + DIM, mask=inside, other=0.0).to(tl.float32)
    new = tl.load(gates + at + 2 * DIM, mask=inside, other=0.0).to(tl.float32)
    return reset, update, new


@triton.jit
def _step(grad, states, kept, part, at, inside):  # type: ignore[no-untyped-def]
    grad_state = tl.load(grad + at, mask=inside, other=0.0)
    before = tl.load(states + at, mask=inside, other=0.0)
    reset = tl.load(kept + at, mask=inside, other=0.0)
    update = tl.load(kept + part + at, mask=inside, other=0.0)
    new = tl.load(kept + 2 * part + at, mask=inside, other=0.0)
    hidden_part = tl.load(kept + 3 * part + at, mask=inside, other=0.0)
    return grad_state, before, reset, update, new, hidden_part
