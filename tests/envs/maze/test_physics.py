from pathlib import Path

import numpy as np
import pytest

from dfplan.envs.maze.layouts import named
from dfplan.envs.maze.physics import MAX_SPEED, PointMass

RECORDED = np.load(Path(__file__).parents[2] / "data" / "d4rl_physics.npz")


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
@pytest.mark.parametrize("run", range(4))
def test_the_model_follows_recorded_trajectories_of_d4rls_own(maze, run):
    physics = PointMass(named(maze))
    physics.set_state(*RECORDED[f"{maze}_start"][run].tolist())
    states = [physics.step(*action) for action in RECORDED[f"{maze}_actions"][run].astype(float).tolist()]
    np.testing.assert_allclose(states, RECORDED[f"{maze}_states"][run], rtol=0, atol=1e-9)


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
def test_the_recordings_hit_walls_and_the_speed_limit(maze):
    states, start = RECORDED[f"{maze}_states"], RECORDED[f"{maze}_start"]
    assert np.abs(states[..., 2:]).max() > MAX_SPEED  # clipped before a step, so seen a little above
    before = np.concatenate([start[:, None], states[:, :-1]], axis=1)
    moved = np.abs(states[..., :2] - before[..., :2])
    pushing = np.abs(RECORDED[f"{maze}_actions"]) == 1
    assert (pushing & (moved < 1e-4)).sum() > 50  # pushed and stopped by a wall


def test_a_state_determines_its_future():
    physics = PointMass(named("umaze"))
    physics.set_state(1.0, 1.0, 0.3, -0.2)
    first = [physics.step(-1.0, 0.7) for _ in range(60)]
    physics.set_state(1.0, 1.0, 0.3, -0.2)
    assert [physics.step(-1.0, 0.7) for _ in range(60)] == first
