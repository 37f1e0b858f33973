"""A corridor at whose end a step leads to another place: always to the same one, or to one of two at random."""

import numpy as np
import pytest

from dfplan.data.chance import by_chance, without_chance
from dfplan.data.padded_windows import PaddedWindows
from dfplan.data.trajectories import Trajectories

STRIDE = 5


def corridor(ends, noise=0.0, episodes=40, steps=60):
    """Noisy steps to the right; those from beyond 2 end at one of the `ends`, from which it goes on."""
    rng = np.random.default_rng(0)
    observations, actions, leaps = [], [], []
    for _ in range(episodes):
        x = np.array([rng.uniform(-2, 2), 0.0])
        for _ in range(steps):
            action = np.array([0.1, 0.0]) + 0.05 * rng.normal(size=2)
            observations.append(x)
            actions.append(action)
            leaps.append(x[0] > 2)
            x = np.array([rng.choice(ends), 0.0]) if x[0] > 2 else x + action + noise * rng.normal(size=2)
    leaps[steps - 1 :: steps] = [False] * episodes  # what follows an episode's last step was not recorded
    arrays = (np.array(observations, np.float32), np.array(actions, np.float32), np.zeros(episodes * steps, np.float32))
    return Trajectories(*arrays, np.arange(0, episodes * steps, steps), "corridor"), np.array(leaps)


def test_steps_that_chance_decided_are_found():
    data, leaps = corridor([-2.0, 0.5])
    assert leaps.sum() > 40 and np.array_equal(by_chance(data, STRIDE), np.flatnonzero(leaps))


@pytest.mark.parametrize(("ends", "noise"), [([-2.0], 0.0), ([-2.0, -1.99], 0.03)])
def test_a_portal_and_small_noise_are_no_chance(ends, noise):
    data, leaps = corridor(ends, noise)
    assert leaps.sum() > 20 and not len(by_chance(data, STRIDE))


def test_episodes_end_where_chance_decided_and_no_step_is_lost():
    data, leaps = corridor([-2.0, 0.5])
    cut = without_chance(data, STRIDE)
    assert np.array_equal(cut.observations, data.observations) and cut.last_observations is None
    assert set(cut.episode_starts) == set(data.episode_starts) | set(np.flatnonzero(leaps) + 1)
    seen = PaddedWindows(cut, 4, STRIDE).sample(np.random.default_rng(0), 500).observations
    assert np.linalg.norm(np.diff(seen, axis=1), axis=-1).max() < 0.5
