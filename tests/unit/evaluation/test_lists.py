"""Catalogue coverage against counting by hand, and its interval against draws of other users."""

import numpy as np
import pytest

from glintru_model.evaluation.intervals import bootstrap_interval, by_user
from glintru_model.evaluation.lists import covered_by_user


def test_coverage_by_hand():
    # Items 1 and 2 stand in two lists, 3 only in the first user's, 4 and 5 only in the third's: 5 of 10 covered.
    recommended = np.array([[1, 3, 2], [1, 2, 0], [4, 5, 0]], dtype=np.int32)
    values = covered_by_user(recommended, np.array([7, 8, 9]), 10)
    assert values.mean() == pytest.approx(0.5)
    # without the first user 4 of 10, without the third 3: the pseudo-values differ by (3 - 1) times these losses
    assert np.diff(values) == pytest.approx([-0.2, 0.4])


def test_lists_of_one_user_count_together():
    once = covered_by_user(np.array([[1, 2, 3, 4], [5, 5, 5, 6]], dtype=np.int32), np.array([0, 1]), 8)
    twice = covered_by_user(np.array([[1, 2], [5, 6], [4, 3]], dtype=np.int32), np.array([0, 1, 0]), 8)
    assert once.tolist() == twice.tolist()
    assert once.mean() == pytest.approx(6 / 8)


@pytest.mark.parametrize(("num_users", "num_items", "steepness"), [(200, 500, 1.0), (400, 2000, 1.5), (300, 2000, 0.5)])
def test_interval_holds_the_coverage_of_other_users_as_often_as_it_says(num_users, num_items, steepness):
    """A resample of users covers less than the users do (none of these would be hit); the interval must not."""
    rng = np.random.default_rng(0)
    weights = np.arange(1, num_items + 1) ** -steepness

    def draw():
        keys = np.log(weights) + rng.gumbel(size=(num_users, num_items))
        return (np.argpartition(-keys, 10, axis=1)[:, :10] + 1).astype(np.int32)

    samples = [draw() for _ in range(80)]
    truth = np.mean([len(np.unique(lists)) for lists in samples]) / num_items
    users, hit, widths = np.arange(num_users), 0, []
    for seed, lists in enumerate(samples):
        low, high = bootstrap_interval(covered_by_user(lists, users, num_items), 200, seed)
        hit, widths = hit + (low <= truth <= high), [*widths, high - low]
    assert hit / len(samples) >= 0.93
    spread = 3.92 * np.std([len(np.unique(lists)) / num_items for lists in samples])
    assert 0.9 < np.mean(widths) / spread < 1.8


def test_values_by_user_keep_the_mean_and_resample_like_users():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 9, size=300)
    users = rng.permutation(np.repeat(np.arange(300), sizes))
    level = rng.random(300)
    values = np.clip(level[users] + 0.1 * rng.normal(size=len(users)), 0, 1)
    gathered = by_user(values, users)
    assert gathered.mean() == pytest.approx(values.mean())
    sums, counts = np.bincount(users, weights=values), np.bincount(users)
    drawn = rng.integers(0, 300, size=(4000, 300))
    plain = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    low, high = bootstrap_interval(gathered, 4000, 0)
    assert (low, high) == pytest.approx(tuple(plain), abs=0.1 * (high - low))
    naive = bootstrap_interval(values, 4000, 0)
    assert naive[1] - naive[0] < 0.75 * (high - low)
    assert by_user(values[:5], np.arange(5)).tolist() == values[:5].tolist()
