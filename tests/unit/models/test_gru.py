import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from glintru_model.models.gru import GRU


def gru_pair(dim):
    ours, torchs = GRU(dim).double(), nn.GRU(dim, dim, bias=False).double()
    torchs.weight_ih_l0.data, torchs.weight_hh_l0.data = ours.weight_input.data, ours.weight_hidden.data
    return ours, torchs


def test_gru_equals_torch_forward_and_backward():
    torch.manual_seed(0)
    ours, torchs = gru_pair(5)
    x = torch.randn(8, 3, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(8, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(x), torchs(x)[0])
    grads = torch.autograd.grad((ours(x) * weights).sum(), [x, ours.weight_input, ours.weight_hidden])
    expected = torch.autograd.grad((torchs(x)[0] * weights).sum(), [x, torchs.weight_ih_l0, torchs.weight_hh_l0])
    torch.testing.assert_close(grads, expected)


def test_gru_that_is_compiled_equals_itself_forward_and_backward():
    torch.manual_seed(0)
    gru = GRU(4)
    x, weights = torch.randn(2, 6, 3, 4)
    results = []
    for run in (gru, torch.compile(gru, backend="aot_eager")):
        out = run(x)
        results.append((out, torch.autograd.grad((out * weights).sum(), list(gru.parameters()))))
        with torch.no_grad():
            results[-1] += (run(x),)
    torch.testing.assert_close(*results)


def test_gru_step_equals_the_whole():
    torch.manual_seed(0)
    gru = GRU(5)
    x = torch.randn(8, 3, 5)
    hidden = torch.zeros(3, 5)
    for step in x:
        hidden = gru.step(step, hidden)
    torch.testing.assert_close(hidden, gru(x)[-1])


def test_the_gru_keeps_its_steps_for_a_gradient_alone():
    gru, x = GRU(4), torch.randn(50, 3, 4)
    held = []

    class Allocations(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.new_empty.default:
                held.append(args[1][0])
            return func(*args, **(kwargs or {}))

    with Allocations():
        with_gradient = gru(x)
        with torch.no_grad():
            without = gru(x)
    assert held == [50, 1]
    assert torch.equal(with_gradient, without)
