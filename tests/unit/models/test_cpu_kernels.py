"""The kernels in C against the same layers in float64, which torch computes."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from glintru_model.config import GlintruConfig
from glintru_model.models.cpu_kernels import attention, compiled, cross_entropy
from glintru_model.models.glintru_experts import LinearAttention
from glintru_model.models.gru import GRU
from glintru_model.models.layers import Dropout, gelu_gate, mixed_gelu_gate
from glintru_model.training import cross_entropy as chunked


def assert_equals_float64(function, *inputs):
    """Outputs and gradients in float32 are those in float64, to 1e-5 of the largest."""
    results = []
    for dtype in (torch.float32, torch.float64):
        cast = [x.detach().to(dtype).requires_grad_() for x in inputs]
        out = function(*cast)
        torch.manual_seed(1)
        weights = torch.randn(out.shape)
        results.append([out.detach(), *torch.autograd.grad((out * weights.to(dtype)).sum(), cast)])
    for found, expected in zip(*results, strict=True):
        assert (found.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


LENGTHS = [1, 2, 31, 32, 33, 64, 65, 130]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("batch", "heads", "head_dim"), [(1, 1, 16), (5, 2, 32), (4, 3, 48)])
def test_softmax_attention(length, batch, heads, head_dim, kernels, threads):
    def attend(qkv):
        if qkv.dtype == torch.float32:
            return attention.causal_softmax_attention(qkv)
        q, k, v = qkv.transpose(1, 3).unbind(2)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    torch.manual_seed(0)
    assert_equals_float64(attend, torch.randn(batch, length, 3, heads, head_dim) * 2)
    assert kernels == ["softmax_attention_forward", "softmax_attention_backward"]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("batch", "heads", "head_dim"), [(1, 1, 16), (5, 4, 16), (4, 2, 48)])
def test_linear_attention(length, batch, heads, head_dim, kernels, threads):
    torch.manual_seed(0)
    layer = LinearAttention(GlintruConfig(embedding_dim=heads * head_dim, num_heads=heads, dropout_rate=0))

    def attend(x, *parameters):
        names = [name for name, _ in layer.named_parameters()]
        arguments = {"mask_LB1": None, "causal": True}
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,), arguments)

    assert_equals_float64(attend, torch.randn(length, batch, heads * head_dim), *layer.parameters())
    assert kernels == ["linear_attention_forward", "linear_attention_backward"]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("batch", "dim"), [(1, 16), (7, 64), (30, 48)])
def test_recurrence(length, batch, dim, kernels, threads):
    torch.manual_seed(0)
    layer = GRU(dim)

    def recur(x, weight_input, weight_hidden):
        parameters = {"weight_input": weight_input, "weight_hidden": weight_hidden}
        return torch.func.functional_call(layer, parameters, (x,))

    assert_equals_float64(recur, torch.randn(length, batch, dim), *layer.parameters())
    assert kernels == ["recurrence_forward", "recurrence_backward"]
    assert_equals_float64(
        lambda x, *weights: recur(x.transpose(0, 1), *weights), torch.randn(batch, length, dim), *layer.parameters()
    )


@pytest.mark.parametrize("num_items", [2, 47, 48, 49, 130])
@pytest.mark.parametrize(("rows", "dim"), [(1, 16), (64, 48), (200, 64)])
def test_cross_entropy(num_items, rows, dim, kernels, threads):
    torch.manual_seed(0)
    targets, weights = torch.randint(1, num_items + 1, (rows,)), torch.rand(rows)

    def loss(hidden, table):
        if hidden.dtype == torch.float32:
            return chunked.cross_entropy(hidden, table, targets, weights, label_smoothing=0.1)
        by_row = F.cross_entropy(hidden @ table[1:].T, targets - 1, reduction="none", label_smoothing=0.1)
        return (by_row * weights.double()).sum()

    assert_equals_float64(loss, torch.randn(rows, dim) * 0.5, torch.randn(num_items + 1, dim) * 0.5)
    assert kernels == ["cross_entropy"]


def test_cross_entropy_leaves_large_logits_and_too_much_memory_to_torch(kernels, monkeypatch):
    hidden, table, targets = torch.randn(70, 16), torch.randn(30, 16), torch.randint(1, 30, (70,))
    found = [chunked.cross_entropy(hidden * scale, table, targets) for scale in (0.1, 100)]
    assert kernels == ["cross_entropy"]
    monkeypatch.setattr(cross_entropy, "MOST_BYTES", 4 * 29 * (64 + 16) - 1)
    found.append(chunked.cross_entropy(hidden * 0.1, table, targets))
    assert kernels == ["cross_entropy"]
    torch.testing.assert_close(found[2], found[0])
    torch.testing.assert_close(found[1], F.cross_entropy(hidden * 100 @ table[1:].T, targets - 1))


def test_threads_are_as_many_as_rows_and_memory_allow(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert cross_entropy.num_parts(1000, 3000, 64) == 4
    assert cross_entropy.num_parts(129, 3000, 64) == 3
    assert cross_entropy.num_parts(1000, 1_000_000, 64) == 2
    assert cross_entropy.num_parts(1000, 3_000_000, 64) == 0


@pytest.mark.parametrize("shape", [(1, 16), (3, 5, 64), (2, 7, 48)])
def test_gates(shape, kernels, threads):
    torch.manual_seed(0)
    values, second, gate = torch.randn(3, *shape).unbind()
    gate[..., ::3] *= 10  # up to where GELU is the identity, or 0
    assert_equals_float64(gelu_gate, torch.cat([values, gate], -1))
    assert_equals_float64(mixed_gelu_gate, values, second, torch.tensor([0.3, 0.7]), gate)
    assert kernels == ["gate_forward", "gate_backward"] * 2


def test_dropout_adds_the_residual_and_drops_its_own_share_of_the_gradient(kernels, threads):
    x, residual = torch.randn(2, 50, 64).requires_grad_(), torch.randn(2, 50, 64).requires_grad_()
    out = Dropout(0.25)(x, residual)
    kept = (out != residual).float() / 0.75
    torch.testing.assert_close(out, x * kept + residual)
    grads = torch.autograd.grad(out.sum(), [x, residual])
    torch.testing.assert_close(grads, (kept, torch.ones_like(x)))
    assert kernels == ["dropout"] * 2


def test_dropout_is_the_same_in_any_number_of_threads_and_another_at_each_call(kernels):
    masks, before = [], torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        masks.append(torch.stack([Dropout(0.5)(torch.ones(101, 48)) for _ in range(2)]))
    torch.set_num_threads(before)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    first, second = (masks[0] - 1).flatten(1)
    for shift in range(20):  # nor are they shifted against each other
        assert (first[shift:] * second[: len(second) - shift]).mean().abs() < 0.06


@pytest.mark.parametrize(("size", "head_dim"), [(300, 16), (3e5, 16), (3e5, 48)])
def test_scores_of_any_size_neither_overflow_nor_vanish(size, head_dim, kernels):
    qkv = torch.randn(2, 40, 3, 2, head_dim)
    qkv[:, :, :2] *= size
    exact = qkv.double().requires_grad_()
    q, k, v = exact.transpose(1, 3).unbind(2)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    found = attention.causal_softmax_attention(qkv.requires_grad_())
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=0.02)
    weights = torch.randn(found.shape)
    [by_value], [exactly] = (
        torch.autograd.grad((out * weights).sum(), x) for out, x in ((found, qkv), (expected, exact))
    )
    torch.testing.assert_close(by_value[:, :, 2], exactly[:, :, 2].float(), rtol=0, atol=0.05)
    assert kernels


def test_what_is_not_a_number_stays_so(kernels):
    # training stops at a loss that is not finite, so a kernel must not hide one
    x = torch.randn(1, 40, 3, 2, 16)
    x[0, 20, 1] = torch.nan
    found = attention.causal_softmax_attention(x)
    assert found[:, 20:].isnan().all()
    assert found[:, :20].isfinite().all()
    assert attention.causal_linear_attention(x.transpose(0, 1), 1e-12)[20:].isnan().all()
    state = torch.randn(40, 1, 16)
    state[20] = torch.nan
    assert GRU(16)(state)[20:].isnan().all()
    gated = gelu_gate(torch.full((2, 32), torch.nan))
    assert gated.isnan().all()
    assert len(kernels) == 4


def test_kernels_are_for_float32_and_widths_of_whole_vectors(kernels):
    x = torch.randn(3, 2, 64)
    assert compiled.can_run(x, 64, 16)
    assert not compiled.can_run(x, 64, 24)
    assert not compiled.can_run(x.double(), 64)
    assert not compiled.can_run(x.bfloat16(), 64)
    assert not compiled.can_run(x.to("meta"), 64)


def test_other_types_beside_are_left_to_torch(kernels):
    x = torch.randn(4, 32)
    assert Dropout(0.5)(x, torch.randn(4, 32).double()).dtype == torch.float64
    assert Dropout(0.5)(x, torch.randn(32)).shape == (4, 32)
    assert mixed_gelu_gate(x, x, torch.ones(2), x.double()).dtype == torch.float64
    with pytest.raises(RuntimeError):
        gelu_gate(torch.randn(4, 33))
    assert not kernels
    with pytest.raises(TypeError, match=r"torch\.float64 on cpu"):
        mixed_gelu_gate(x, x, torch.ones(2).double(), x)
    layer = LinearAttention(GlintruConfig(embedding_dim=64, dropout_rate=0))
    wide = torch.randn(6, 2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(wide, None, causal=True)
    torch.testing.assert_close(found.float(), layer(wide, None, causal=True), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e-1])
def test_small_inputs_keep_their_digits(scale, kernels):
    torch.manual_seed(0)
    layer, x = GRU(16), torch.randn(20, 2, 16) * scale
    assert_equals_float64(lambda x: copy.deepcopy(layer).to(x.dtype)(x), x)

    def attend(projected):
        if projected.dtype == torch.float32:
            return attention.causal_linear_attention(projected, 1e-12)
        q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-12).sqrt() for x in F.elu(projected[:, :, :2]).unbind(2))
        scores = torch.einsum("tbhk,sbhk->bhts", q, k).tril() / 4
        return torch.einsum("bhts,sbhk->tbhk", scores, projected[:, :, 2])

    assert_equals_float64(attend, torch.randn(20, 2, 3, 4, 16) * scale)


def test_sums_over_a_large_catalogue_keep_their_digits(kernels):
    hidden, items, weights = torch.zeros(64, 16), torch.randn(300_000, 16), torch.full((64,), 1 / 64)
    sums, grad_hidden = cross_entropy.sums_and_gradients(hidden, items, weights, torch.zeros_like(items), 1)
    torch.testing.assert_close(sums, torch.full((64,), 300_000.0), rtol=1e-6, atol=0)
    torch.testing.assert_close(grad_hidden[0].double() * 64, items.double().mean(0), rtol=0, atol=2e-6)


def test_short_memory_is_an_error(kernels, monkeypatch):
    class Short:
        @staticmethod
        def dropout(*arguments):
            return 1

    monkeypatch.setattr(compiled, "kernels", Short)
    with pytest.raises(MemoryError, match="dropout"):
        compiled.run("dropout", 4)


def test_one_history_takes_one_thread(threads, kernels, monkeypatch):
    taken = []

    class Spy:
        @staticmethod
        def dropout(threads, *arguments):
            taken.append(threads.value)
            return 0

    monkeypatch.setattr(compiled, "kernels", Spy)
    for count in (1, 2):
        compiled.run("dropout", count, torch.empty(1 << 20))
    assert taken == [1, threads]


def test_a_gate_that_is_full_stays_so_where_subnormal_numbers_are_zero(kernels):
    gru = GRU(16)
    with torch.no_grad():
        gru.weight_hidden.zero_()
        gru.weight_input.zero_()
        gru.weight_input[32:].fill_(1.0)
    try:
        if not torch.set_flush_denormal(True):
            pytest.skip("not on this processor")
        states = gru(torch.full((3, 1, 16), 20.0))
    finally:
        torch.set_flush_denormal(False)
    torch.testing.assert_close(states[:, 0, 0], torch.tensor([0.5, 0.75, 0.875]))
    assert kernels
