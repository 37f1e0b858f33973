import numpy as np
import pytest
from scipy import stats

from dfplan.intervals import (
    Estimate,
    compare,
    interquartile_mean,
    mean,
    over_seeds_and_starts,
)


def covered(found, truth):
    return found.low <= truth <= found.high


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_stratified_intervals_cover_the_truth_about_as_often_as_they_say(statistic):
    """Three seeds whose true means differ: they are kept, so the truth is the mean of these three."""
    rng = np.random.default_rng(3)
    centers = np.array([80.0, 100.0, 120.0]) if statistic is mean else np.full(3, 100.0)
    hits = sum(covered(statistic(rng.normal(centers[:, None], 20, (3, 20)), resamples=300), 100.0) for _ in range(150))
    assert 0.88 <= hits / 150 <= 0.99


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_starts_that_seeds_share_are_drawn_for_all_of_them(statistic):
    """Returns on one start correlate between seeds, here at 0.6: episodes are not independent, starts are."""
    rng = np.random.default_rng(5)
    seeds, joint, independent = np.array([[-9.0], [0.0], [9.0]]) * (statistic is mean), 0, 0
    for _ in range(200):
        scores = 100 + seeds + rng.normal(0, 20 * 0.6**0.5, (1, 40)) + rng.normal(0, 20 * 0.4**0.5, (3, 40))
        joint += covered(statistic(scores, resamples=300, same_starts=True), 100.0)
        independent += covered(statistic(scores, resamples=300), 100.0)
    assert 0.9 <= joint / 200 <= 0.985 and independent / 200 < 0.87


def test_the_interval_of_skewed_values_covers_their_mean():
    rng = np.random.default_rng(3)
    hits = sum(covered(mean([rng.exponential(size=50)], resamples=500), 1.0) for _ in range(200))
    assert 0.88 <= hits / 200 <= 0.99


def test_random_seeds_and_starts_are_covered_where_the_stratified_interval_is_too_narrow():
    rng = np.random.default_rng(0)
    crossed, stratified = 0, 0
    for _ in range(100):
        scores = rng.normal(0, 5, (12, 1)) + rng.normal(0, 10, (1, 40)) + rng.normal(0, 5, (12, 40))
        crossed += covered(over_seeds_and_starts(scores, resamples=300), 0.0)
        stratified += covered(mean(scores, resamples=100), 0.0)
    assert 0.85 <= crossed / 100 <= 0.99 and stratified / 100 < 0.6


def test_the_interval_is_the_normal_one_where_that_is_right():
    values = np.random.default_rng(0).normal(10, 2, size=(4, 100)) + np.arange(4)[:, None]
    found = mean(values)
    half = 1.96 * values.std(axis=1, ddof=1).mean() / 20  # within the strata: their distance does not count
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_strata_narrow_the_interval_where_seeds_differ():
    strata = [np.arange(20.0), 1000 + np.arange(20.0)]
    split, pooled = mean(strata), mean([np.concatenate(strata)])
    assert split.value == pooled.value and split.high - split.low < 0.1 * (pooled.high - pooled.low)


def test_the_interquartile_mean_ignores_the_outer_quarters_of_all_episodes():
    assert interquartile_mean([[-1000, 1, 2, 3], [4, 5, 6, 1000]]).value == pytest.approx(3.5)
    episodes = np.random.default_rng(0).normal(size=(3, 33))
    assert interquartile_mean(episodes).value == stats.trim_mean(episodes, 0.25, axis=None)


def test_where_leaving_one_out_changes_nothing_percentiles_take_over():
    """Most episodes fail alike: the middle half stays 0 without any one of them."""
    found = interquartile_mean([[0.0] * 32 + [10.0] * 8])
    assert found.value == 0.0 and found.low == 0.0 and 0 < found.high < 5


def test_equal_values_and_single_values():
    assert mean([[4.0] * 5]) == mean([[4.0] * 2, [4.0] * 3]) == Estimate(4.0, 4.0, 4.0)
    assert mean([[4.0]]) == mean([[3.0], [5.0]]) == Estimate(4.0, None, None)
    assert over_seeds_and_starts(np.ones((2, 9))) == Estimate(1.0)
    assert over_seeds_and_starts(np.ones((3, 9))) == Estimate(1.0, pytest.approx(1.0), pytest.approx(1.0))


def test_seeds_with_the_same_starts_have_as_many_episodes_each():
    with pytest.raises(ValueError, match=r"have as many episodes each, got \[2, 3\]"):
        mean([[1.0, 2.0], [1.0, 2.0, 3.0]], same_starts=True)
    alone = np.random.default_rng(6).normal(size=(1, 30))
    assert mean(alone, same_starts=True) == mean(alone), "one seed has nothing to share"


def test_equal_values_give_equal_intervals():
    values = np.random.default_rng(1).random((3, 10))
    assert mean(values) == mean(values) and over_seeds_and_starts(values) == over_seeds_and_starts(values)


def test_pairs_tell_a_small_difference_apart_that_separate_intervals_hide():
    rng = np.random.default_rng(2)
    far = rng.normal(0, 50, 60)  # a far start is far for both
    first, second = far + 5 + rng.normal(0, 4, (2, 60)), far + rng.normal(0, 4, (3, 60))
    found = compare(first, second)
    differences = first.mean(axis=0) - second.mean(axis=0)
    assert found.value == pytest.approx(differences.mean())
    assert 0 < found.low < 5 < found.high
    assert mean(second).high > mean(first).low


def test_an_agent_does_not_differ_from_itself():
    scores = np.random.default_rng(4).random((3, 20))
    assert compare(scores, scores) == Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize("strata", [[], [[]], [[1.0], []], [[[1.0, 2.0]]], [[1.0, np.nan]], [[np.inf]]])
def test_what_has_no_mean_is_refused(strata):
    with pytest.raises(ValueError, match="a mean needs"):
        mean(strata)


def test_what_cannot_be_compared_is_refused():
    ones = np.ones((3, 4))
    with pytest.raises(ValueError, match="on the same starts can be compared, got 4 and 5"):
        compare(ones, np.ones((3, 5)))
    with pytest.raises(ValueError, match="training seeds, starts"):
        over_seeds_and_starts([1.0, 2.0])
