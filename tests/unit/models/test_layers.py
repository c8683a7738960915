import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from glintru_model.models.layers import Dropout, TemporalConv, linear


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


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3)])
def test_linear_equals_torch_forward_and_backward(shape):
    torch.manual_seed(0)
    ours = linear(3, 5).double()
    nn.init.normal_(ours.bias)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), F.linear(x, ours.weight, ours.bias))
    assert torch.autograd.gradcheck(
        lambda *inputs: torch.func.functional_call(ours, dict_of(ours, inputs), inputs[0]),
        (x, *(parameter.detach().requires_grad_() for parameter in ours.parameters())),
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.float()(x.float()).dtype == torch.bfloat16


def test_projections_that_share_a_layer_start_at_the_scale_of_one():
    torch.manual_seed(0)
    bound = (6 / (64 + 64)) ** 0.5
    for layer in (linear(64, 64), linear(64, 192)):
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert not layer.bias.any()
    assert linear(64, 32).weight.abs().max().item() == pytest.approx((6 / 96) ** 0.5, rel=0.01)
