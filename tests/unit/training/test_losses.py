import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from glintru_model.config import TrainingConfig
from glintru_model.training import cross_entropy as chunked
from glintru_model.training import losses
from glintru_model.training.cross_entropy import cross_entropy
from glintru_model.training.losses import binary_cross_entropy, build_loss, sampled_softmax

CPU = torch.device("cpu")


def problem(rows, num_items, dim=6, scale=1.0, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    hidden = (torch.randn(rows, dim, dtype=dtype) * scale).requires_grad_()
    table = torch.randn(num_items + 1, dim, dtype=dtype).requires_grad_()
    return hidden, table, torch.randint(1, num_items + 1, (rows,))


def full(hidden, table, targets, smoothing=0.0):
    return F.cross_entropy(hidden @ table[1:].T, targets - 1, label_smoothing=smoothing)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked, "CPU_BLOCK_BYTES", 64 * 8)
    monkeypatch.setattr(chunked, "MIN_CHUNK_BYTES", 8)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 40),
    num_items=st.integers(1, 30),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    block_elements=st.integers(1, 200),
    min_rows=st.integers(1, 8),
    scale=st.sampled_from([1.0, 20.0]),  # logits that exp takes as they are, and logits that it cannot
)
def test_cross_entropy_equals_torch_forward_and_backward(rows, num_items, smoothing, block_elements, min_rows, scale):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "CPU_BLOCK_BYTES", block_elements * 8)
        patch.setattr(chunked, "MIN_CHUNK_BYTES", min_rows * 8)
        hidden, table, targets = problem(rows, num_items, scale=scale)
        ours, torchs = (
            cross_entropy(hidden, table, targets, label_smoothing=smoothing),
            full(hidden, table, targets, smoothing),
        )
        torch.testing.assert_close(ours, torchs)
        gradients = torch.autograd.grad(3 * ours, (hidden, table))  # what comes from above is multiplied in
        torch.testing.assert_close(gradients, torch.autograd.grad(3 * torchs, (hidden, table)))


def test_cross_entropy_in_float32_survives_logits_far_apart():
    hidden, table, targets = problem(50, 20, scale=100.0, dtype=torch.float32)
    ours, exact = cross_entropy(hidden, table, targets), full(hidden.double(), table.double(), targets)
    assert exact > 100  # a target's own probability is 0 in float32
    assert ours.item() == pytest.approx(exact.item(), rel=1e-5)
    gradient = torch.autograd.grad(ours, hidden)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(exact, hidden)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("logit", [chunked.SMALL_LOGIT * 0.999, chunked.SMALL_LOGIT * 1.001])
def test_cross_entropy_in_float32_is_exact_where_exp_begins_to_be_shifted(logit):
    hidden = torch.tensor([[logit]]).requires_grad_()
    table = torch.tensor([[0.0], [-1.0]] + [[1.0]] * 1_000)
    ours = cross_entropy(hidden, table, torch.tensor([1]))
    assert ours.item() == pytest.approx(2 * logit + math.log(1_000), rel=1e-6)
    assert torch.autograd.grad(ours, hidden)[0].item() == pytest.approx(2.0, rel=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the most elements that any result had."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_cross_entropy_never_holds_all_logits(small_chunks):
    hidden, table, targets = problem(300, 50)
    with Largest() as largest:
        cross_entropy(hidden, table, targets).backward()
    assert largest.elements == 300 * 6  # the hidden rows; all logits would be 300 * 50


def test_a_second_backward_is_refused_as_it_would_be_wrong():
    hidden, table, targets = problem(5, 9)
    loss = cross_entropy(hidden, table, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(TypeError):
        loss.backward()


def test_cross_entropy_in_bfloat16_stays_near_and_returns_the_inputs_types(monkeypatch):
    monkeypatch.setattr(chunked, "CPU_BLOCK_BYTES", 48 * 8 * 2)
    monkeypatch.setattr(chunked, "MIN_CHUNK_BYTES", 48 * 2)  # chunks of 48 rows, the last of 16, in blocks of 8 items
    hidden, table, targets = problem(200, 4_000, dtype=torch.float32)  # sums kept in bfloat16 would be too small
    exact = full(hidden, table, targets)
    with torch.autocast("cpu", torch.bfloat16):
        ours = cross_entropy(hidden, table, targets)
    gradients = torch.autograd.grad(ours, (hidden, table))
    assert ours.dtype == torch.float32
    assert [g.dtype for g in gradients] == [torch.float32] * 2
    assert ours.item() == pytest.approx(exact.item(), rel=5e-4)
    for ours_grad, exact_grad in zip(gradients, torch.autograd.grad(exact, (hidden, table)), strict=True):
        assert F.cosine_similarity(ours_grad.flatten(), exact_grad.flatten(), 0) > 0.999


def test_cross_entropy_has_few_shapes_of_products_whatever_the_number_of_rows(monkeypatch):
    shapes = set()

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_):
                shapes.add(tuple(tuple(argument.shape) for argument in args))
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr(chunked, "CPU_BLOCK_BYTES", 256 * 16 * 2)
    for rows in range(600, 897):
        hidden, table, targets = problem(rows, 40, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16), Products():
            cross_entropy(hidden, table, targets)
    # logits, and both factors' gradients, of 64, 128, 192 and 256 rows and of 16 and 8 items
    assert len(shapes) == 3 * 4 * 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_items", [1, 40, 3_416, 12_101, 100_000, 1_000_000])
def test_sizes_of_chunks_and_blocks_obey_their_bounds(num_items, dtype):
    rows, items = chunked._sizes(torch.empty(1 << 20, 1, dtype=dtype), torch.empty(num_items, 1, dtype=dtype))
    assert rows % 64 == 0
    assert rows * dtype.itemsize == 512 or rows * num_items * dtype.itemsize <= 2**20
    line = rows * dtype.itemsize
    assert items * line <= 2**20 + 8 * line
    assert items >= num_items or items * line > 2**19  # no more blocks than needed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_rows_are_one_chunk(dtype):
    assert chunked._sizes(torch.empty(64, 1, dtype=dtype), torch.empty(1_000, 1, dtype=dtype)) == (64, 1_000)


@pytest.mark.parametrize("name", ["cross_entropy", "sampled_softmax", "gbce", "bce"])
def test_padding_is_no_candidate_of_any_loss(name):
    loss = build_loss(TrainingConfig(loss=name, num_negatives=7), np.ones(30, dtype=np.int64), CPU)
    hidden, table, targets = problem(12, 30, dtype=torch.float32)
    values = []
    for padding in (0.0, 1e6):
        with torch.no_grad():
            table[0] = padding
        torch.manual_seed(0)
        values.append(loss(hidden, table, targets))
    assert values[0] == values[1]
    assert not torch.autograd.grad(values[1], table)[0][0].any()


@pytest.mark.parametrize("name", ["cross_entropy", "sampled_softmax", "gbce", "bce"])
def test_every_loss_falls_as_the_target_rises(name):
    loss = build_loss(TrainingConfig(loss=name, num_negatives=7), np.ones(30, dtype=np.int64), CPU)
    hidden, table, targets = problem(12, 30, dtype=torch.float32)
    torch.manual_seed(0)
    gradient = torch.autograd.grad(loss(hidden, table, targets), hidden)[0]
    torch.manual_seed(0)
    before = loss(hidden, table, targets)
    torch.manual_seed(0)
    assert loss(hidden - 0.01 * gradient, table, targets) < before


def test_label_smoothing_of_the_settings_reaches_the_loss():
    hidden, table, targets = problem(5, 9)
    loss = build_loss(TrainingConfig(label_smoothing=0.3), np.ones(9, dtype=np.int64), CPU)
    torch.testing.assert_close(loss(hidden, table, targets), full(hidden, table, targets, 0.3))


def test_sampled_softmax_estimates_the_sum_over_the_catalogue_without_bias():
    hidden, table, targets = problem(1, 8, dtype=torch.float32)
    proposal = torch.tensor([8.0, 7, 6, 5, 4, 3, 2, 1]) / 36
    exact = full(hidden, table, targets).exp()  # sum of exponentials over that of the target
    rows = 40_000
    torch.manual_seed(1)
    with torch.no_grad():
        # one row a draw of 2: the mean of exp(loss) over rows is what must be unbiased
        estimates = [
            sampled_softmax(hidden, table, targets, num_negatives=2, proposal_V=proposal).exp().item()
            for _ in range(3000)
        ]
        many = sampled_softmax(
            hidden.expand(rows, -1), table, targets.expand(rows), num_negatives=512, proposal_V=proposal
        )
    assert np.mean(estimates) == pytest.approx(exact.item(), rel=4 * np.std(estimates) / np.mean(estimates) / 3000**0.5)
    assert many.item() == pytest.approx(math.log(exact.item()), rel=0.01)


def test_sampled_softmax_over_the_target_alone_is_zero():
    hidden, table, targets = problem(4, 1, dtype=torch.float32)
    loss = sampled_softmax(hidden, table, targets, num_negatives=3, proposal_V=torch.ones(1))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_sampled_softmax_draws_by_training_frequency():
    counts = np.array([0, 90, 10, 0, 0])  # items never seen count once, so that none is out of reach
    drawn = []

    def record(hidden, table, targets, *, num_negatives, proposal_V):
        drawn.append(proposal_V)
        return hidden.sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "sampled_softmax", record)
        build_loss(TrainingConfig(loss="sampled_softmax"), counts, CPU)(*problem(2, 5))
    np.testing.assert_allclose(drawn[0].numpy(), np.array([1, 90, 10, 1, 1]) / 103, rtol=1e-6)


@pytest.mark.parametrize(
    ("num_negatives", "calibration", "power"),
    [
        (10, 0.0, 1.0),  # BCE
        (10, 0.75, 0.325),  # a = 10 / 100: 0.1 * (0.75 * (1 - 10) + 10)
        (10, 1.0, 0.1),  # full calibration: b = a
        (100, 0.75, 1.0),  # every other item drawn: nothing to calibrate
    ],
)
def test_binary_cross_entropy_by_hand(num_negatives, calibration, power):
    # the target scores 2, every other item -1
    table = torch.full((102, 1), -1.0)
    table[1] = 2.0
    rows = 4000
    torch.manual_seed(0)
    loss = binary_cross_entropy(
        torch.ones(rows, 1),
        table,
        torch.ones(rows, dtype=torch.long),
        num_negatives=num_negatives,
        calibration=calibration,
    )
    positive, negative = math.log1p(math.exp(-2)), math.log1p(math.exp(-1))
    others = num_negatives * 100 / 101  # a draw hits the target once in 101 times and is then left out
    assert loss.item() == pytest.approx((power * positive + others * negative) / (num_negatives + 1), rel=0.01)


def test_few_negatives_are_drawn_anew_for_each_row_and_many_are_shared():
    drawn = []

    def draw(shape):
        drawn.append(shape)
        return torch.ones(shape, dtype=torch.long)

    table = torch.randn(5, 2)
    for rows, num_negatives in ((1000, 1), (1000, 256), (7, 1 << 17)):
        negatives = losses._Negatives(
            torch.randn(rows, 2), table, torch.ones(rows, dtype=torch.long), num_negatives, draw
        )
        assert negatives.logits_NK.shape == (rows, num_negatives)
    assert drawn == [(1000, 1), (250, 256), (1, 1 << 17)]


def test_a_shared_draw_gives_each_row_the_logits_of_its_own_draw():
    torch.manual_seed(0)
    hidden, table = torch.randn(1000, 2), torch.randn(50, 2)
    negatives = losses._Negatives(
        hidden, table, torch.ones(1000, dtype=torch.long), 256, lambda shape: torch.randint(1, 50, shape)
    )
    ids = negatives.per_row(negatives.item_ids_GK)
    assert ids.shape == (1000, 256)
    torch.testing.assert_close(negatives.logits_NK, (hidden[:, None] * table[ids]).sum(-1))
    assert torch.equal(negatives.is_target_NK, ids == 1)
