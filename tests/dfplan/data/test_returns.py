import dataclasses

import numpy as np
import pytest

from dfplan.data.returns import discount_of, returns_to_go
from dfplan.data.trajectories import Trajectories


def rewarded(rewards, starts=(0,), terminations=()) -> Trajectories:
    n = len(rewards)
    flags = np.isin(np.arange(n), terminations)
    nothing = np.zeros((n, 1), np.float32)
    return Trajectories(nothing, nothing, np.float32(rewards), np.array(starts), "some rewards", flags)


def test_pace_of_a_small_episode_by_hand_with_both_ends():
    g = 2 / 3  # three steps
    cut = [(1 + 2 * g + 6 * g**2) / (1 + g + g**2), (2 + 6 * g) / (1 + g), 6]
    np.testing.assert_allclose(returns_to_go(rewarded([1, 2, 6])), cut, rtol=1e-6)
    ended = [(1 + 2 * g + 6 * g**2) / 3, (2 + 6 * g) / 3, 6 / 3]
    np.testing.assert_allclose(returns_to_go(rewarded([1, 2, 6], terminations=[2])), ended, rtol=1e-6)


def test_a_fall_costs_what_could_have_been_gained_and_a_cut_costs_nothing():
    data = rewarded(np.ones(30), starts=[0, 10, 20], terminations=[19])
    pace = returns_to_go(data)
    np.testing.assert_allclose(pace[[*range(10), *range(20, 30)]], 1, rtol=1e-6)
    np.testing.assert_allclose(pace[10:20], 1 - 0.9 ** np.arange(10, 0, -1), rtol=1e-5)
    assert (np.diff(pace[10:20]) < 0).all() and pace.dtype == np.float32


@pytest.mark.parametrize("terminations", [(), (4,), (6, 12), (2, 4, 9)])
def test_pace_is_the_sum_that_it_is_defined_as(terminations):
    rewards, starts = np.random.default_rng(0).standard_normal(13), np.array([0, 5, 7])
    pace, g = returns_to_go(rewarded(rewards, starts, terminations)), discount_of(6)
    for t in range(13):
        episode_end = int(min([s for s in starts if s > t], default=13))
        terminal = next((i for i in range(t, episode_end) if i in terminations), None)
        end = episode_end if terminal is None else terminal + 1
        weights = g ** np.arange(end - t)
        below = weights.sum() if terminal is None else (g ** np.arange(1000)).sum()
        np.testing.assert_allclose(pace[t], (weights * rewards[t:end]).sum() / below, rtol=1e-5)


def test_episodes_of_one_step_have_their_reward_as_pace():
    assert returns_to_go(rewarded([3, -1], starts=[0, 1])).tolist() == [3, -1]
    assert returns_to_go(rewarded([3, -1], starts=[0, 1], terminations=[0])).tolist() == [3, -1]


def test_an_episode_of_the_longest_length_and_even_rewards_has_its_return_over_that_length():
    data = rewarded(np.full(200, 0.25), starts=[0, 100])
    np.testing.assert_allclose(returns_to_go(data)[0], data.returns[0] / 100, rtol=1e-6)
    rising = dataclasses.replace(data, rewards=np.float32(np.tile(np.linspace(0.2, 0.3, 100), 2)))
    np.testing.assert_allclose(returns_to_go(rising)[0], rising.returns[0] / 100, rtol=0.05)
