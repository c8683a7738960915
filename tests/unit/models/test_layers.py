import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from glintru_model.models import layers
from glintru_model.models.layers import GRU, Dropout, TemporalConv, linear


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_its_rate_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    out = Dropout(rate)(torch.ones(1000, 1001))
    assert (out == 0).double().mean().item() == pytest.approx(rate, abs=0.002)
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - rate)], rel=1e-4)


def test_dropout_treats_elements_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(200_000)) != 0).double() - 0.5
    for lag in (1, 2, 3, 4, 8):  # four elements come from one random word
        assert (kept[lag:] * kept[:-lag]).mean().abs() < 0.002


def test_dropout_repeats_under_a_seed_and_scales_its_gradient_alike():
    x = torch.ones(7, 5, requires_grad=True)
    torch.manual_seed(3)
    first = Dropout(0.4)(x)
    torch.manual_seed(3)
    assert torch.equal(first, Dropout(0.4)(x))
    first.sum().backward()
    assert torch.equal(x.grad, first.detach())


@pytest.mark.parametrize("layer", [Dropout(0.5).eval(), Dropout(0.0)])
def test_dropout_does_nothing_in_evaluation_or_at_rate_zero(layer):
    x = torch.randn(3, 4)
    assert layer(x) is x


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("causal", [True, False])
def test_convolution_equals_torch_on_padded_input(kernel_size, causal):
    if not causal and kernel_size % 2 == 0:
        pytest.skip("symmetric kernels are odd")
    torch.manual_seed(0)
    conv = TemporalConv(4, kernel_size, causal=causal).double()
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    before = kernel_size - 1 if causal else kernel_size // 2
    padded = F.pad(x.permute(1, 2, 0), (before, kernel_size - 1 - before))
    expected = F.conv1d(padded, conv.weight.permute(1, 2, 0), conv.bias).permute(2, 0, 1)
    torch.testing.assert_close(conv(x), expected)
    assert torch.autograd.gradcheck(
        lambda *inputs: torch.func.functional_call(conv, dict_of(conv, inputs), inputs[0]),
        (x, *(p.detach().requires_grad_() for p in conv.parameters())),
    )


def dict_of(module, inputs):
    return dict(zip([name for name, _ in module.named_parameters()], inputs[1:], strict=True))


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_convolution_step_equals_the_whole(kernel_size):
    torch.manual_seed(0)
    conv = TemporalConv(4, kernel_size, causal=True)
    x = torch.randn(6, 3, 4)
    window, rows = torch.zeros(kernel_size - 1, 3, 4), []
    for step in x:
        row, window = conv.step(step, window)
        rows.append(row)
    torch.testing.assert_close(torch.stack(rows), conv(x))
    assert window.shape == (kernel_size - 1, 3, 4)


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


def test_projections_that_share_a_layer_start_at_the_scale_of_one():
    torch.manual_seed(0)
    bound = (6 / (64 + 64)) ** 0.5
    for layer in (linear(64, 64), linear(64, 192)):
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert not layer.bias.any()
    assert linear(64, 32).weight.abs().max().item() == pytest.approx((6 / 96) ** 0.5, rel=0.01)


@pytest.mark.parametrize(("compiler", "expected"), [("/usr/bin/gcc", True), (None, False)])
def test_kernels_need_triton_and_a_compiler_and_their_absence_is_said(compiler, expected, monkeypatch, capsys):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(layers, "find_spec", lambda name: object())
    monkeypatch.setattr(layers.shutil, "which", lambda name: compiler)
    monkeypatch.delenv("CC", raising=False)
    assert layers._has_triton.__wrapped__() is expected
    assert ("no C compiler" in capsys.readouterr().out) is not expected
    monkeypatch.setattr(torch.version, "cuda", None)
    assert layers._has_triton.__wrapped__() is False


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
