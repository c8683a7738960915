import pytest
import torch

from glintru_model.models.best import best_first
from glintru_model.models.cpu_kernels import compiled


@pytest.fixture(params=["kernel", "torch"])
def way(request, kernels, monkeypatch):
    """By the kernel and without it; the test must leave the kernel's name where it is one."""
    if request.param == "torch":
        monkeypatch.setattr(compiled, "kernels", lambda: None)
    yield request.param
    assert set(kernels) == ({"best"} if request.param == "kernel" else set())


@pytest.mark.parametrize(("rows", "columns", "count"), [(1, 2, 1), (3, 10, 10), (40, 333, 10), (5, 2000, 128)])
def test_takes_the_greatest_in_order(rows, columns, count, way):
    torch.manual_seed(0)
    scores = torch.randn(rows, columns)
    items, best = best_first(scores, count)
    expected = scores.sort(descending=True, stable=True)
    assert torch.equal(items, expected.indices[:, :count])
    assert torch.equal(best, expected.values[:, :count])


def test_of_equal_scores_the_lower_index_stands_first(way):
    scores = torch.tensor([[0.0, 2, 1, 2, 1, 2, 3]])
    assert best_first(scores, 6)[0].tolist() == [[6, 1, 3, 5, 2, 4]]


def test_the_lower_index_is_kept_where_not_all_equal_ones_have_a_place(kernels):
    scores = torch.zeros(2, 500)
    scores[1, 300:] = 1
    assert best_first(scores, 3)[0].tolist() == [[0, 1, 2], [300, 301, 302]]
    assert kernels == ["best"]


def test_where_too_few_are_left_the_rest_is_padding(way):
    scores = torch.full((2, 200), -torch.inf)
    scores[0, [7, 150]] = torch.tensor([-1e30, 5.0])
    items, best = best_first(scores, 4)
    assert items.tolist() == [[150, 7, 0, 0], [0, 0, 0, 0]]
    assert best[0].tolist() == [5, torch.tensor(-1e30).item(), -torch.inf, -torch.inf]
    assert best[1].tolist() == [-torch.inf] * 4


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_taken_and_hides_nothing_else(value, way):
    places = torch.arange(64, 128)
    nowhere, best = (x.flatten() for x in torch.meshgrid(places, places, indexing="ij"))
    scores = torch.zeros(len(best), 200)
    scores[torch.arange(len(best)), best] = 2
    scores[torch.arange(len(best)), nowhere] = value
    items, values = best_first(scores, 2)
    other = nowhere != best
    assert torch.equal(items[other, 0], best[other])
    assert (items != nowhere[:, None]).all()
    assert values.isfinite().all()


def test_rows_may_lie_apart_and_be_many(kernels):
    scores = torch.randn(30, 400)
    assert torch.equal(best_first(scores[:, ::2], 5)[0], best_first(scores[:, ::2].clone(), 5)[0])
    assert torch.equal(best_first(scores.T, 5)[0], scores.T.topk(5).indices)
    assert kernels == ["best"] * 3


def test_many_and_other_precisions_are_left_to_torch(kernels):
    scores = torch.randn(2, 400)
    assert torch.equal(best_first(scores, 129)[0], scores.topk(129).indices)
    assert torch.equal(best_first(scores.double(), 5)[0], scores.topk(5).indices)
    assert best_first(scores, 0)[0].shape == (2, 0)
    with pytest.raises(RuntimeError):
        best_first(scores[:, :3], 4)
    assert not kernels
