"""What is computed once for each item that occurs against the encoding of every step."""

import pytest
import torch

from glintru_model.config import GlintruConfig
from glintru_model.errors import DataError
from glintru_model.models import glintru_by_item
from glintru_model.models.glintru import GLINTRU

NUM_ITEMS = 40
LENGTHS = [1, 37, 2, 19, 3, 37, 16, 4, 20, 20, 5, 33, 2, 1, 8, 30]


def built(dtype=torch.float64, embedding_dim=12, num_heads=3, **settings):
    torch.manual_seed(0)
    model = GLINTRU(GlintruConfig(embedding_dim=embedding_dim, num_heads=num_heads, **settings), NUM_ITEMS)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too must matter
            parameter += 0.3 * torch.randn_like(parameter)
        model.item_embedding.weight[0] = 0
    return model.to(dtype).eval()


def histories(lengths, width):
    item_ids = torch.randint(1, NUM_ITEMS + 1, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    return item_ids, torch.tensor(lengths)  # behind each history are other items, which nothing may read


@pytest.mark.parametrize("positions", [1, 20, 4096])
@pytest.mark.parametrize(("kernel_size", "scale_embeddings"), [(3, False), (1, True), (4, False)])
def test_equals_the_last_row_of_the_whole_encoding(positions, kernel_size, scale_embeddings, monkeypatch):
    monkeypatch.setattr(glintru_by_item, "POSITIONS_AT_ONCE", positions)
    model = built(kernel_size=kernel_size, scale_embeddings=scale_embeddings)
    item_ids, lengths = histories(LENGTHS, 40)
    whole = model.encode(item_ids, lengths)[torch.arange(len(lengths)), lengths - 1]
    with torch.no_grad():
        torch.testing.assert_close(model.last_hidden(item_ids, lengths), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("embedding_dim", "num_heads", "kernel_size"), [(16, 1, 3), (64, 4, 1), (48, 1, 4)])
@pytest.mark.parametrize("lengths", [LENGTHS, [37] * 48, [5] * 60 + [1] * 40])  # 48 histories step together
def test_equals_it_by_the_kernel_too(lengths, embedding_dim, num_heads, kernel_size, threads, kernels):
    model = built(torch.float32, embedding_dim, num_heads=num_heads, kernel_size=kernel_size)
    item_ids, lengths = histories(lengths, 37)
    with torch.no_grad():
        found = model.last_hidden(item_ids, lengths)
        assert torch.equal(model.last_hidden(item_ids.int(), lengths.int()), found)
        assert set(kernels) == {"experts_by_item", "gate_forward"}
        expected = model.double().newest(item_ids, lengths)
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_a_long_history_keeps_its_digits(kernels):
    model = built(torch.float32, 16, num_heads=1)
    item_ids, lengths = torch.ones(3, 30_000, dtype=torch.long), torch.tensor([30_000, 257, 1])
    with torch.no_grad():
        found = model.last_hidden(item_ids, lengths)
        assert "experts_by_item" in kernels
        expected = model.double().newest(item_ids, lengths)
    assert (found - expected).abs().max() < 2e-6 * expected.abs().max()


def test_equals_it_in_float32_to_a_ten_thousandth():
    model = built(torch.float32)
    item_ids, lengths = histories(LENGTHS, 37)
    whole = model.encode(item_ids, lengths)[torch.arange(len(lengths)), lengths - 1]
    with torch.no_grad():
        assert (model.last_hidden(item_ids, lengths) - whole).abs().max() < 1e-4 * whole.abs().max()


def test_is_taken_where_it_is_equal_and_no_gradient_is_asked_for(monkeypatch):
    taken = []
    monkeypatch.setattr(GLINTRU, "_newest_by_item", lambda *_: taken.append(True))
    item_ids, lengths = histories([4] * 10, 4)
    with torch.no_grad():
        built().last_hidden(item_ids, lengths)
        assert taken == [True]
        built().last_hidden(item_ids[:9], lengths[:9])  # fewer than there are items
        for other in (built().train(), built(variant="paper"), built(num_blocks=2)):
            other.last_hidden(item_ids, lengths)
    assert built().last_hidden(item_ids, lengths).requires_grad
    assert taken == [True]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_needs_no_padding_and_no_wide_ids(dtype):
    model = built()
    item_ids, lengths = histories([9] * 16, 9)
    item_ids = item_ids.clamp_min(3).to(dtype)  # the smallest that occurs is no padding
    with torch.no_grad():
        expected = model.newest(item_ids, lengths)
        torch.testing.assert_close(model.last_hidden(item_ids, lengths), expected, rtol=1e-12, atol=1e-12)


def test_autocast_is_let_be():
    model = built(torch.float32)
    item_ids, lengths = histories(LENGTHS, 37)
    with torch.no_grad():
        expected = model.last_hidden(item_ids, lengths)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.last_hidden(item_ids, lengths), expected)


def test_takes_no_item_from_outside_the_vocabulary():
    with torch.no_grad(), pytest.raises(DataError, match=r"item index 41, allowed: 1\.\.40"):
        built().last_hidden(torch.tensor([[3, 41]] * 20), torch.tensor([2] * 20))
