"""SASRec as one kernel against the same model in float64, which torch computes."""

import copy
from contextlib import suppress

import pytest
import torch

from glintru_model.config import SasrecConfig
from glintru_model.models.sasrec import ITEMS_REPEAT, SASRec


def built(num_items, dim=32, **settings):
    torch.manual_seed(0)
    model = SASRec(SasrecConfig(embedding_dim=dim, max_seq_len=130, **settings), num_items).eval()
    for parameter in model.parameters():  # biases and norms too must matter
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    return model


def histories(num_items, batch, length):
    return torch.randint(1, num_items + 1, (batch, length)), length - torch.arange(batch) % length


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 130])
@pytest.mark.parametrize(("dim", "num_heads", "num_blocks"), [(16, 1, 1), (64, 2, 2), (48, 3, 3)])
@pytest.mark.parametrize("items_repeat", [False, True])
def test_equals_float64(length, dim, num_heads, num_blocks, items_repeat, kernels):
    num_items = 3 if items_repeat else 12 * length
    model = built(num_items, dim, num_heads=num_heads, num_blocks=num_blocks)
    item_ids, lengths = histories(num_items, 12, length)
    assert (item_ids.numel() >= ITEMS_REPEAT * num_items) == items_repeat
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        for found, expected in (
            (model(item_ids, lengths), exact(item_ids, lengths)),
            (model.newest(item_ids, lengths.int()), exact.newest(item_ids, lengths)),
        ):
            assert (found.double() - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert kernels == ["transformer"] * 2


def test_takes_ids_and_weights_however_they_lie_in_memory(kernels):
    model = built(25)
    item_ids, lengths = histories(25, 6, 20)
    with torch.no_grad():
        expected = model.newest(item_ids, lengths)
        assert torch.equal(model.newest(item_ids.int().T.contiguous().T, lengths), expected)
        for part in (model.item_embedding, model.positions, model.blocks[0].query_key_value):
            part.weight = torch.nn.Parameter(part.weight.T.contiguous().T)
        torch.testing.assert_close(model.newest(item_ids, lengths), expected)
    assert kernels == ["transformer"] * 3


def test_is_left_where_something_else_is_asked_for(kernels):
    model = built(50)
    item_ids, lengths = histories(50, 6, 20)
    assert model.newest(item_ids, lengths).requires_grad
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            model.newest(item_ids, lengths)
        model.blocks[1].dropout.train()
        model.newest(item_ids, lengths)
        built(50, dim=24).newest(item_ids, lengths)
        built(50, num_heads=4).newest(item_ids, lengths)  # heads of width 8
    assert "transformer" not in kernels


@pytest.mark.parametrize(
    ("item_ids", "lengths"),
    [
        (torch.tensor([[3, -1]]), torch.tensor([2])),
        (torch.tensor([[3, 51]]), torch.tensor([2])),
        (torch.tensor([[3.0, 4.0]]), torch.tensor([2])),
        (torch.empty(1, 0, dtype=torch.long), torch.tensor([1])),
        (torch.tensor([[3, 4]]), torch.tensor([2, 1])),
    ],
)
def test_reads_nothing_beyond_its_input(item_ids, lengths, kernels):
    with torch.no_grad(), suppress(IndexError, RuntimeError):  # torch's
        built(50).newest(item_ids, lengths)
    assert "transformer" not in kernels


@pytest.mark.parametrize(("num_blocks", "num_projections"), [(1, 1), (2, 2)])
def test_what_items_bring_is_prepared_where_a_block_needs_every_step(num_blocks, num_projections, kernels, monkeypatch):
    prepared, projected = [], SASRec._projected
    monkeypatch.setattr(SASRec, "_projected", lambda *given: prepared.append(given[1:]) or projected(*given))
    model = built(5, num_blocks=num_blocks)
    item_ids, lengths = histories(5, 6, 20)
    with torch.no_grad():
        model(item_ids, lengths)
        model.newest(item_ids, lengths)
    assert prepared == [(20,)] * num_projections


def test_embeddings_of_a_large_mean_keep_their_digits(kernels):
    model = built(20, 64)
    model.item_embedding.weight.data += 10
    item_ids, lengths = histories(20, 6, 20)
    with torch.no_grad():
        found = model.newest(item_ids, lengths)
        expected = copy.deepcopy(model).double().newest(item_ids, lengths)
    assert (found.double() - expected).abs().max() <= 2e-5 * expected.abs().max()
    assert kernels == ["transformer"]


@pytest.mark.parametrize("num_items", [12, 50])
def test_what_is_not_a_number_stays_so_and_where_it_is(num_items, kernels):
    model = built(num_items)
    item_ids, lengths = histories(num_items - 1, 2, 30)  # of 12 items each is prepared, of 50 none
    item_ids[0, 20] = num_items
    model.item_embedding.weight.data[num_items] = torch.nan
    with torch.no_grad():
        every, newest = model(item_ids, lengths), model.newest(item_ids, lengths)
    assert every[0, 20:].isnan().all()
    assert newest[0].isnan().all()
    assert every[1].isfinite().all()
    assert newest[1].isfinite().all()
    assert kernels == ["transformer"] * 2


@pytest.mark.parametrize("num_items", [12, 50])
def test_scores_of_any_size_neither_overflow_nor_vanish(num_items, kernels):
    model = built(num_items)
    for block in model.blocks:
        block.query_key_value.weight.data *= 30
    exact = copy.deepcopy(model).double()
    item_ids, lengths = histories(num_items, 2, 30)
    with torch.no_grad():
        for found, expected in (
            (model(item_ids, lengths), exact(item_ids, lengths)),
            (model.newest(item_ids, lengths), exact.newest(item_ids, lengths)),
        ):
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.01)
    assert kernels == ["transformer"] * 2


def test_threads_share_the_histories(threads, kernels):
    model = built(25)
    item_ids, lengths = histories(25, 7, 20)
    with torch.no_grad():
        together = model.newest(item_ids, lengths)
        alone = [model.newest(item_ids[row : row + 1], lengths[row : row + 1]) for row in range(7)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert kernels == ["transformer"] * 8
