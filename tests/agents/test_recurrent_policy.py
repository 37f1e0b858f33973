"""A recurrent policy remembers what an episode has shown, each row its own, and learns what only memory can say."""

import numpy as np
import pytest
import torch

from dfplan.agents.recurrent_policy import (
    RecurrentPolicyAgent,
    RecurrentPolicyConfig,
    RecurrentPolicyModel,
    episodes,
)
from dfplan.data.trajectories import Trajectories


def recalls(count=40, seed=0):
    """Episodes of 4 or 6 steps whose first observation shows a sign that is the action of all steps."""
    rng = np.random.default_rng(seed)
    lengths = rng.choice([4, 6], count)
    starts = np.cumsum([0, *lengths[:-1]])
    signs = rng.choice([-1.0, 1.0], count)
    observations = rng.normal(scale=0.1, size=(lengths.sum(), 1))
    observations[starts, 0] = signs
    actions = np.repeat(signs, lengths)[:, None]
    rewards = np.zeros(len(actions))
    arrays = (array.astype(np.float32) for array in (observations, actions, rewards))
    return Trajectories(*arrays, starts.astype(np.int64), "recalls")


@pytest.fixture(scope="module")
def agent():
    data = recalls()
    torch.manual_seed(0)
    learner = RecurrentPolicyModel(RecurrentPolicyConfig(1, 1, width=16, depth=1))
    learner.fit_statistics(data)
    agent = RecurrentPolicyAgent(learner)
    agent.learning_rate = 1e-2
    batch, rng = episodes(data), np.random.default_rng(0)
    for _ in range(60):
        losses = agent.update(batch(rng, 32))
    assert losses["loss"] < 0.1
    return agent


def test_whole_episodes_are_drawn_and_padding_is_marked():
    data = recalls()
    observations, actions, valid = episodes(data)(np.random.default_rng(1), 50)
    assert observations.shape == (50, 6, 1) and actions.shape == (50, 6, 1)
    assert set(valid.sum(1)) == {4.0, 6.0}
    assert np.array_equal(np.abs(observations[:, 0, 0]), np.ones(50)), "each begins at its start"
    assert np.array_equal(actions[:, 1:], actions[:, :-1]), "and stays in its episode"


def test_what_was_shown_at_the_start_decides_all_actions(agent):
    agent.reset()
    actions = [agent.act(np.array([[sign], [-sign]])) for sign in (1.0, 0.0, 0.05, 0.0)]
    for action in actions:
        assert action[0, 0] > 0.5 and action[1, 0] < -0.5


def test_a_row_whose_episode_begins_forgets_and_the_others_do_not(agent):
    agent.reset()
    agent.act(np.array([[1.0], [1.0]]))
    agent.forget([1])
    action = agent.act(np.array([[0.0], [-1.0]]))
    assert action[0, 0] > 0.5 and action[1, 0] < -0.5
    agent.reset()
    assert agent.act(np.array([-1.0]))[0] < -0.5
