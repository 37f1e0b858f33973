import dataclasses

import numpy as np
import pytest
from numbered_episodes import numbered

from dfplan.data.features import AS_RECORDED
from dfplan.data.goals import hindsight, mixing_steps
from dfplan.data.trajectories import Trajectories


@pytest.mark.parametrize("last", [True, False])
def test_goals_lie_ahead_in_the_same_episode_and_all_are_equally_likely(last):
    data = numbered([6, 3, 20], last)
    now = np.repeat([0, 3, 7, 10], 3000)
    goals = hindsight(data, now, np.random.default_rng(0), longest=4)
    np.testing.assert_array_equal(goals[:, 1], data.observations[now, 0])  # the goal columns are (1, 0)
    ahead = goals[:, 0] - data.observations[now, 1]
    expected = {0: 4, 3: 3 if last else 2, 7: 2 if last else 1, 10: 4}
    for step, most in expected.items():
        values, counts = np.unique(ahead[now == step], return_counts=True)
        assert values.tolist() == list(range(1, most + 1)) and counts.min() > 0.9 * 3000 / most


def test_goals_that_cannot_be_are_refused():
    data, rng = numbered([4, 2], last=False), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"numbered: nothing was recorded after step 3\."):
        hindsight(data, np.array([0, 3]), rng, 5)
    with pytest.raises(ValueError, match="at least 1 step ahead, not 0"):
        hindsight(data, np.array([0]), rng, 0)
    with pytest.raises(ValueError, match="numbered: the data have no goal columns"):
        hindsight(dataclasses.replace(data, features=AS_RECORDED), np.array([0]), rng, 5)


def jumping(chance: float, steps: int = 2000, episodes: int = 50) -> Trajectories:
    """Column 0 jumps to a new random place with that chance in each step, so that it has changed by
    2 (1 - (1 - chance)^lag) after `lag` steps; column 1 is constant, column 2 the number of the episode."""
    rng = np.random.default_rng(0)
    total = steps * episodes
    places = rng.standard_normal(total + 1)[np.cumsum(rng.random(total) < chance)]
    observations = np.stack([1000 * places, np.ones(total), np.repeat(np.arange(episodes), steps)], axis=1)
    nothing = np.zeros((total, 1), np.float32)
    return Trajectories(np.float32(observations), nothing, nothing[:, 0], np.arange(0, total, steps), "jumping")


@pytest.mark.parametrize("chance", [0.2, 0.1, 0.05])
def test_columns_have_mixed_when_they_have_changed_as_much_as_they_ever_do(chance):
    data = jumping(chance)
    expected = np.log(0.1) / np.log(1 - chance)
    found = mixing_steps(data, (0,))
    assert 0.7 * expected < found < 1.4 * expected
    assert found == mixing_steps(data, (0,)) and abs(found - mixing_steps(data, (0, 1))) < 0.3 * expected


def test_what_only_drifts_has_mixed_late_in_an_episode_and_what_mixes_at_once_after_a_step():
    assert 20 < mixing_steps(numbered([41, 30]), (1,)) <= 41
    assert mixing_steps(jumping(1.0), (0,)) <= 2
    assert mixing_steps(numbered([2, 2]), (1,)) == 2


def test_columns_that_never_change_or_do_not_exist_are_refused():
    data = jumping(0.5, steps=20)
    for columns, message in (
        ((1,), r"jumping: the goal's columns \(1,\) never change\."),
        ((2,), r"columns \(2,\) never change within an episode"),
        ((3,), "columns must be different columns of the observation"),
        ((), r"columns \(\) never change"),
    ):
        with pytest.raises(ValueError, match=message):
            mixing_steps(data, columns)
    with pytest.raises(ValueError, match="no episode has two observations"):
        mixing_steps(numbered([1, 1], last=False), (0,))
