"""An agent that learned in other spaces is refused before it plays."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from dfplan.benchmarks import workers
from dfplan.benchmarks.fitting import require_fit

sb3 = pytest.importorskip("stable_baselines3")
NET = {"net_arch": [8]}


def saved(path, env):
    sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, policy_kwargs=NET).save(path)
    return workers.Player(f"sb3:{path}", "maze2d-umaze-v1", None, "cpu")


@pytest.mark.parametrize(
    "change, sentence",
    [
        (
            lambda env: gymnasium.wrappers.RescaleAction(env, np.float32(0), np.float32(1)),
            r"actions are vectors of 2 numbers from 0 to 1, and the environment's are vectors of 2 numbers from -1 to 1",
        ),
        (
            lambda env: gymnasium.wrappers.RescaleAction(env, np.float32([-1, -0.5]), np.float32([1, 0.5])),
            r"actions are vectors of 2 numbers from \(-1, -0\.5\) to \(1, 0\.5\)",
        ),
        (
            lambda env: gymnasium.wrappers.TransformObservation(env, lambda o: o[:3], Box(-np.inf, np.inf, (3,))),
            "observations are vectors of 3 numbers, and the environment's are vectors of 4 numbers",
        ),
    ],
)
def test_a_model_of_other_spaces_is_not_played(change, sentence, tmp_path):
    player = saved(tmp_path / "model.zip", change(gymnasium.make("maze2d-umaze-v1")))
    with pytest.raises(ValueError, match=sentence) as caught:
        workers.build(player)
    assert "model.zip' does not fit maze2d-umaze-v1: its" in str(caught.value)


def test_a_model_of_the_environment_s_own_spaces_plays(tmp_path):
    player = saved(tmp_path / "model.zip", gymnasium.make("maze2d-umaze-v1"))
    assert workers.build(player).act(np.zeros(4)).shape == (2,)


class Agent:
    def __init__(self, **spaces):
        self.__dict__.update(spaces)


def test_any_agent_that_names_its_spaces_is_compared():
    actions, plain, pair = Box(-1, 1, (2,)), Box(-9, 9, (4,)), Box(-9, 9, (2,))
    goals = Dict(observation=plain, achieved_goal=pair, desired_goal=pair)
    for fitting in ({}, {"action_space": actions}, {"observation_space": goals, "action_space": actions}):
        require_fit(Agent(**fitting), "multi2d-umaze-v1", "mine")
    for other, sentence in (
        ({"action_space": Discrete(4)}, r"actions are Discrete\(4\)"),
        ({"action_space": Box(-1, 1, (2, 1))}, r"actions are arrays of shape \(2, 1\)"),
        ({"observation_space": Dict(observation=plain)}, r"a dictionary of observation \(vectors of 4 numbers\), and"),
        ({"observation_space": Dict(observation=plain, achieved_goal=plain, desired_goal=plain)}, "dictionary"),
    ):
        with pytest.raises(ValueError, match=f"mine does not fit multi2d-umaze-v1: its .*{sentence}"):
            require_fit(Agent(**other), "multi2d-umaze-v1", "mine")
