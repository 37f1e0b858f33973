"""Agents inside other libraries' loops."""

import gymnasium
import numpy as np
import pytest

import dfplan.envs  # noqa: F401
from dfplan.agents.adapters import Policy
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.envs.expert import WaypointExpert
from dfplan.envs.tasks import find


@pytest.fixture(scope="module")
def agent():
    return DiffusionForcingAgent.from_pretrained("maze2d-umaze")


def test_stable_baselines3_evaluates_it_as_its_own_loop_does(agent):
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    env = gymnasium.make("maze2d-umaze-v1")
    env.reset(seed=7)
    goal = env.unwrapped.goal
    returns, lengths = evaluation.evaluate_policy(
        Policy(agent, goal), env, n_eval_episodes=2, return_episode_rewards=True, warn=False
    )
    assert lengths == [300, 300]
    assert min(returns) > 100  # a random walk gets about 36


def test_rows_that_begin_anew_are_planned_anew(agent):
    envs = gymnasium.make_vec("multi2d-umaze-v1", 2, vectorization_mode="sync", goal_conditioned=True)
    observation, _ = envs.reset(seed=3)
    policy = Policy(agent)
    action, _ = policy.predict(observation, episode_start=np.array([True, True]))
    assert action.shape == (2, 2)
    before = agent._following.path[1].clone()
    observation["desired_goal"][0] = observation["desired_goal"][1]
    policy.predict(observation, episode_start=np.array([True, False]))
    assert agent._following.clock.tolist() == [1.0, 2.0]
    assert bool((agent._following.path[1] == before).all())


def test_one_observation_gives_one_action(agent):
    action, state = Policy(agent, goal=[1.0, 1.0]).predict(np.array([3.0, 1.0, 0.0, 0.0]), state="kept")
    assert action.shape == (2,) and state == "kept"


def test_an_agent_that_cannot_forget_rows_says_so():
    policy = Policy(WaypointExpert(find("maze2d-umaze").layout), goal=np.array([[1.0, 1.0], [1.0, 1.0]]))
    observation = np.array([[3.0, 1.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]])
    policy.predict(observation, episode_start=np.array([True, True]))
    with pytest.raises(TypeError, match="has no `forget`"):
        policy.predict(observation, episode_start=np.array([True, False]))


def test_a_dictionary_without_a_goal_is_refused(agent):
    with pytest.raises(ValueError, match="desired_goal"):
        Policy(agent).predict({"observation": np.zeros((1, 4))})
