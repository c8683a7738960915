import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glintru_model.models.attention import (
    causal_linear_attention,
    linear_attention,
    linear_attention_step,
    unit_norm,
)


def projections(length, batch=2, heads=3, head_dim=4, dtype=torch.float64):
    """Unit-norm q and k, and v, as views with time first in memory."""
    q, k, v = torch.randn(3, length, batch, heads, head_dim, dtype=dtype).unbind()
    return tuple(x.permute(1, 2, 0, 3) for x in (unit_norm(q), unit_norm(k), v))


def quadratic(q, k, v):
    return (q @ k.mT).tril() @ v / q.shape[-1] ** 0.5


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 70), chunk_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_any_chunk_size_equals_the_quadratic_form(length, chunk_size, seed):
    torch.manual_seed(seed)
    q, k, v = projections(length)
    torch.testing.assert_close(causal_linear_attention(q, k, v, chunk_size), quadratic(q, k, v), rtol=1e-10, atol=1e-12)


def test_float32_over_a_long_history_stays_close_to_the_quadratic_form_in_float64():
    torch.manual_seed(0)
    q, k, v = projections(1500, dtype=torch.float32)
    expected = quadratic(q.double(), k.double(), v.double())
    error = (causal_linear_attention(q, k, v).double() - expected).abs().max()
    assert error / expected.abs().max() < 1e-4


def test_gradients_equal_finite_differences():
    torch.manual_seed(0)
    inputs = [x.detach().requires_grad_() for x in projections(7, 1, 2, 3)]
    assert torch.autograd.gradcheck(lambda q, k, v: causal_linear_attention(q, k, v, 3), inputs)
    assert torch.autograd.gradcheck(unit_norm, torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True))


def test_one_state_a_chunk_is_kept_and_no_weights():
    q, k, v = (x.requires_grad_() for x in projections(64, batch=1, heads=1))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        causal_linear_attention(q, k, v, 16)
    assert max(kept) == 64 * 4  # q, k or v; the quadratic form would keep 64 * 64
    assert (64 // 16 + 1) * 4 * 4 in kept


def test_bidirectional_attention_sums_over_every_step():
    torch.manual_seed(0)
    q, k, v = projections(9)
    torch.testing.assert_close(linear_attention(q, k, v), q @ k.mT @ v / 2)


def test_steps_equal_the_whole():
    torch.manual_seed(0)
    q, k, v = projections(20)
    state = lost = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    rows = []
    for t in range(20):
        row, state, lost = linear_attention_step(q[:, :, t], k[:, :, t], v[:, :, t], state, lost)
        rows.append(row)
    torch.testing.assert_close(torch.stack(rows, 2), causal_linear_attention(q, k, v, 8))


def test_ten_thousand_steps_in_float32_lose_nothing():
    torch.manual_seed(0)
    v = torch.rand(10_000, 1, 1, 4) + 3  # of one sign, so that the sum only grows
    q = k = unit_norm(torch.rand(10_000, 1, 1, 4))
    state = lost = torch.zeros(1, 1, 4, 4)
    for t in range(10_000):
        row, state, lost = linear_attention_step(q[t], k[t], v[t], state, lost)
    exact = torch.einsum("bhk,tbhk,tbhv->bhv", q[-1].double(), k.double(), v.double()) / 2
    torch.testing.assert_close(row.double(), exact, rtol=5e-7, atol=0)


@pytest.mark.parametrize("attention", [causal_linear_attention, linear_attention])
def test_autocast_does_not_shorten_the_sums(attention):
    q, k, v = projections(50, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = attention(q, k, v)
    assert torch.equal(under_autocast, attention(q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_vector_has_no_direction_and_a_finite_gradient(dtype):
    x = torch.tensor([[0.0, 0.0], [3.0, -4.0]], dtype=dtype, requires_grad=True)
    out = unit_norm(x)
    out.sum().backward()
    torch.testing.assert_close(out.detach(), torch.tensor([[0.0, 0.0], [0.6, -0.8]], dtype=dtype))
    assert x.grad.isfinite().all()
