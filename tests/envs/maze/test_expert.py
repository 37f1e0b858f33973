from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import dfplan.envs  # noqa: F401
from dfplan.envs.maze.expert import Driver, WaypointExpert, distance_field, shortest_path
from dfplan.envs.maze.layouts import named, parse

RECORDED = np.load(Path(__file__).parents[2] / "data" / "d4rl_expert.npz")


class Replay:
    """A generator that returns recorded numbers, scaled back to [0, 1)."""

    def __init__(self, draws):
        self._draws = draws

    def random(self, shape):
        head, self._draws = self._draws[: shape[0]], self._draws[shape[0] :]
        return head.reshape(shape)


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
def test_actions_are_those_of_d4rls_own_controller(maze):
    layout = named(maze)
    driver = Driver(layout, Replay(RECORDED[f"{maze}_draws"]))
    steps = [
        driver.act(*state, layout.cell_of(*goal))
        for state, goal in zip(RECORDED[f"{maze}_states"].tolist(), RECORDED[f"{maze}_goals"].tolist(), strict=True)
    ]
    np.testing.assert_allclose([step[:2] for step in steps], RECORDED[f"{maze}_actions"], rtol=0, atol=1e-12)
    assert [step[2] for step in steps] == RECORDED[f"{maze}_reached"].tolist()
    assert sum(step[2] for step in steps) >= 4


def test_paths_are_shortest_and_stay_in_free_cells():
    layout = named("large")
    field = distance_field(layout, layout.goal_cell)
    for cell in map(tuple, layout.free_cells.tolist()):
        path = shortest_path(field, cell)
        assert path[-1] == layout.goal_cell
        assert len(path) == max(field[cell], 1)
        assert not any(layout.walls[step] for step in path)
        assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in pairwise(path))
    assert field[1, 1] == 14


def test_unreachable_and_walled_goals_are_named():
    layout = parse("#####\n#O#G#\n#####")
    with pytest.raises(ValueError, match=r"cell \(0, 0\) is not a free cell"):
        distance_field(layout, (0, 0))
    with pytest.raises(ValueError, match=r"no way leads from cell \(1, 1\)"):
        shortest_path(distance_field(layout, (1, 3)), (1, 1))


@pytest.mark.parametrize("env_id", ["maze2d-umaze-v1", "maze2d-medium-v1", "maze2d-large-v1", "multi2d-large-v1"])
def test_it_reaches_the_goal_and_stays(env_id):
    env = gym.make(env_id)
    expert = WaypointExpert(env.unwrapped.layout)
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        expert.reset(info["goal"], seed=seed)
        success, truncated = [], False
        while not truncated:
            observation, _, _, truncated, info = env.step(expert.act(observation))
            success.append(info["success"])
        first = success.index(True)
        assert first < 0.7 * len(success)
        assert all(success[first + 100 :])


def test_a_batch_equals_its_rows_and_the_seed_decides():
    layout = named("large")
    states = np.array([[1.0, 1.0, 0, 0], [5.0, 8.0, 0.1, -0.2], [7.0, 9.0, 0, 0]])
    expert = WaypointExpert(layout)
    expert.reset(np.array([[7.0, 9.0], [1.0, 1.0], [3.0, 4.0]]), seed=1)
    batch = expert.act(states)
    assert batch.shape == (3, 2) and batch.dtype == np.float32
    expert.reset([7.0, 9.0], seed=1)
    single = expert.act(states[0])
    assert single.shape == (2,)
    assert np.array_equal(single, batch[0])
    expert.reset([7.0, 9.0], seed=2)
    moved = np.tile([2.5, 1.0, 0.0, 0.0], (1, 1))
    expert.reset([7.0, 9.0], seed=1)
    again = expert.act(moved)
    expert.reset([7.0, 9.0], seed=1)
    assert np.array_equal(again, expert.act(moved))


@pytest.mark.parametrize("observation", [np.zeros(3), np.zeros((2, 5)), np.zeros((1, 1, 4))])
def test_a_bad_observation_is_refused(observation):
    with pytest.raises(ValueError, match="an observation is"):
        WaypointExpert(named("umaze")).act(observation)


def test_a_batch_of_another_size_and_a_bad_goal_are_refused():
    expert = WaypointExpert(named("umaze"))
    state = np.array([1.0, 1.0, 0.0, 0.0])
    expert.act(state)
    with pytest.raises(ValueError, match="call reset between"):
        expert.act(np.tile(state, (2, 1)))
    with pytest.raises(ValueError, match="a goal is"):
        expert.reset(goal=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="a goal is"):
        expert.reset(goal=["1", "2"])
    expert.reset(goal=np.ones((3, 2)))
    for observation in (state, np.tile(state, (2, 1))):
        with pytest.raises(ValueError, match="the goals have 3 rows, but the observations"):
            expert.act(observation)
