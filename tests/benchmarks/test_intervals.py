import numpy as np
import pytest

from dfplan.benchmarks.intervals import estimate


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        found = estimate(rng.exponential(size=50), resamples=500)
        hits += found.low <= 1.0 <= found.high
    assert 0.86 <= hits / 200 <= 0.99


def test_it_agrees_with_the_normal_interval_where_that_is_right():
    values = np.random.default_rng(0).normal(10, 2, size=400)
    found = estimate(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_the_interquartile_mean_ignores_the_outer_quarters():
    assert estimate([-1000, 1, 2, 3, 4, 5, 6, 1000]).interquartile_mean == pytest.approx(3.5)


def test_equal_values_and_single_values():
    same, single = estimate([4.0] * 5), estimate([4.0])
    assert (same.low, same.mean, same.high) == (4.0, 4.0, 4.0)
    assert (single.low, single.mean, single.high) == (None, 4.0, None)


def test_equal_values_give_equal_intervals():
    values = np.random.default_rng(1).random(30)
    assert estimate(values) == estimate(values)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, np.nan], [np.inf]])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(ValueError, match="a mean needs"):
        estimate(values)
