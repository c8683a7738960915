import numpy as np
import pytest

from glintru_model.errors import DataError
from glintru_model.evaluation.intervals import bootstrap_interval, estimate, paired_bootstrap


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(400):
        values = (rng.random(400) < 0.2).astype(float)
        low, high = bootstrap_interval(values, 300, seed)
        covered += low <= 0.2 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_resampling_by_distinct_values_is_resampling_by_users():
    values = np.repeat([0.0, 0.2890648, 0.5, 1.0], [70, 10, 15, 5])
    rng = np.random.default_rng(1)
    plain = np.quantile(values[rng.integers(0, 100, size=(20_000, 100))].mean(axis=1), [0.025, 0.975])
    assert bootstrap_interval(values, 20_000, 2) == pytest.approx(plain, abs=0.004)


def test_continuous_values_agree_with_the_normal_interval():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=20_000)
    error = 1.96 * values.std() / np.sqrt(20_000)
    assert bootstrap_interval(values, 4_000, 0) == pytest.approx(
        (values.mean() - error, values.mean() + error), abs=error / 10
    )


def test_interval_depends_on_the_seed_and_on_nothing_else():
    values = np.random.default_rng(4).random(300)
    assert bootstrap_interval(values, 200, 5) == bootstrap_interval(values[::-1].copy(), 200, 5)
    assert bootstrap_interval(values, 200, 5) != bootstrap_interval(values, 200, 6)


def test_constant_values_have_an_interval_of_no_width():
    result = estimate(np.full(50, 0.25), 100, 0)
    assert (result.value, result.low, result.high) == (0.25, 0.25, 0.25)


def test_empty_values_are_refused():
    with pytest.raises(DataError, match="no values"):
        bootstrap_interval(np.array([]), 100, 0)


def test_equal_systems_do_not_differ():
    values = np.random.default_rng(0).random(100)
    result = paired_bootstrap(values, values, 200, 0)
    assert (result.difference, result.low, result.high, result.p_value, result.verdict) == (0, 0, 0, 1, 0)


def test_a_small_but_steady_lead_is_seen_only_because_users_are_paired():
    base = np.random.default_rng(1).random(500)
    result = paired_bootstrap(base + 0.01, base, 999, 0)
    assert result.difference == pytest.approx(0.01)
    assert result.low > 0
    assert result.p_value == pytest.approx(2 / 1000)
    assert result.verdict == 1
    low, high = bootstrap_interval(base, 999, 0)
    assert low < base.mean() + 0.01 < high


def test_swapping_the_systems_flips_the_sign():
    rng = np.random.default_rng(2)
    a, b = rng.random(200), rng.random(200) + 0.3
    forward, backward = paired_bootstrap(a, b, 400, 0), paired_bootstrap(b, a, 400, 0)
    assert forward.difference == pytest.approx(-backward.difference)
    assert (forward.verdict, backward.verdict) == (-1, 1)


def test_p_value_rejects_a_true_null_no_more_often_than_it_says():
    rng = np.random.default_rng(3)
    rejected = sum(
        paired_bootstrap(rng.integers(0, 2, 200), rng.integers(0, 2, 200), 300, seed).p_value < 0.05
        for seed in range(400)
    )
    assert 0.02 <= rejected / 400 <= 0.09


def test_different_numbers_of_users_cannot_be_paired():
    with pytest.raises(DataError, match="2 and 3 values cannot be paired"):
        paired_bootstrap(np.zeros(2), np.zeros(3), 100, 0)
