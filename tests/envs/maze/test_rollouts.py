import copy
import pickle

import numpy as np
import pytest

from dfplan.envs.maze.layouts import named
from dfplan.envs.maze.physics import MAX_SPEED, PointMass
from dfplan.envs.maze.rollouts import Rollouts


def drives(maze, N=12, H=120, seed=0):
    """Starts in free cells at speed, and controls that are held, so that walls are hit."""
    rng, cells = np.random.default_rng(seed), named(maze).free_cells
    places = cells[rng.integers(len(cells), size=N)] + rng.uniform(-0.1, 0.1, (N, 2))
    states = np.concatenate([places, 3 * rng.normal(size=(N, 2))], axis=1)
    return states, np.repeat(rng.uniform(-1.5, 1.5, (N, H // 10, 2)), 10, axis=1)


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
def test_rollouts_are_what_stepping_gives(maze):
    states, actions = drives(maze)
    found, physics, pushed = Rollouts(named(maze))(states, actions), PointMass(named(maze)), 0
    for n in range(len(states)):
        physics.set_state(*states[n].tolist())
        stepped = np.array([physics.step(*action) for action in actions[n].tolist()])
        np.testing.assert_allclose(found[n], stepped, rtol=0, atol=1e-4)  # the solver's tolerance, in contacts only
        pushed += (np.abs(np.diff(stepped[:, :2], axis=0)) < 1e-4).any(axis=1).sum()
    assert pushed > 50, "walls stopped the particles often"
    assert np.abs(found[..., 2:]).max() > MAX_SPEED, "the speed limit was met"


def test_free_flight_is_exact():
    states, actions = drives("open", H=10)
    states[:] = [2.0, 3.0, 1.0, -2.0]
    physics = PointMass(named("open"))
    found = Rollouts(named("open"))(states, actions)
    for n in range(len(states)):
        physics.set_state(*states[n].tolist())
        np.testing.assert_allclose(found[n], [physics.step(*a) for a in actions[n].tolist()], rtol=0, atol=1e-13)


def test_rows_do_not_see_one_another():
    states, actions = drives("umaze")
    rollouts = Rollouts(named("umaze"))
    together = rollouts(states, actions)
    for n in (0, 5, 11):
        assert np.array_equal(rollouts(states[n : n + 1], actions[n : n + 1])[0], together[n])


@pytest.mark.parametrize(
    ("states", "actions", "message"),
    [
        (np.ones((3, 4)), np.ones((2, 5, 2)), "as many rows of actions as of states, got 2 and 3"),
        (np.ones(4), np.ones((1, 5, 2)), r"finite states \(N, 4\)"),
        (np.ones((1, 4)), np.ones((1, 2)), r"finite actions \(N, H, 2\)"),
        (np.full((1, 4), np.nan), np.ones((1, 5, 2)), "finite states"),
        (np.ones((1, 4)), np.full((1, 5, 2), np.inf), "finite actions"),
        (np.ones((1, 4)), np.ones((1, 5, 2)) * 1j, "finite actions"),
        ([["1", "1", "0", "0"]], np.ones((1, 5, 2)), "finite states"),
    ],
)
def test_bad_input(states, actions, message):
    with pytest.raises(ValueError, match=message):
        Rollouts(named("umaze"))(states, actions)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda rollouts: pickle.loads(pickle.dumps(rollouts))])
def test_rollouts_are_pickled_and_copied(again):
    rollouts, (states, actions) = Rollouts(named("umaze")), drives("umaze")
    assert np.array_equal(again(rollouts)(states, actions), rollouts(states, actions))
