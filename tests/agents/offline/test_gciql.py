"""GCIQL on a line: values count the steps to a goal that no single episode goes straight to, and the policy goes there."""

import numpy as np
import pytest
import torch

from dfplan.agents.offline.gciql import GCIQL, GCIQLAgent, GCIQLConfig
from dfplan.data.features import Features
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Relabeled

PLACES, GAMMA = 5, 0.8


@pytest.fixture(scope="module")
def walk():
    """A random walk on 0..4, one step at a time."""
    rng = np.random.default_rng(0)
    actions = rng.choice([-1.0, 1.0], size=(1_000, 1)).astype(np.float32)
    place = np.zeros((1_001, 1), np.float32)
    for step, action in enumerate(actions):
        place[step + 1] = np.clip(place[step] + action, 0, PLACES - 1)
    features, rewards = Features(goal_columns=(0,)), np.zeros(1_000, np.float32)
    return Trajectories(
        place[:-1], actions, rewards, np.array([0]), "walk", last_observations=place[-1:], features=features
    )


def test_values_count_steps_and_the_policy_goes_to_its_goal(walk, tmp_path):
    config = GCIQLConfig(1, 1, seeds=(0,), hidden=(32, 32), gamma=GAMMA, goal_columns=(0,), alpha=0.05, climb=4.0)
    agent = GCIQLAgent(GCIQL(config))
    agent.learner.fit_statistics(walk)
    batches, rng = Relabeled(walk, config.seeds, config.goal_columns, GAMMA), np.random.default_rng(0)
    agent._optimizer = torch.optim.Adam(agent.learner.parameters(), lr=3e-3)
    for _ in range(400):
        agent.update(tuple(part.numpy() for part in batches(rng, 128)))
    agent.save(tmp_path / "gciql.safetensors")
    here, goal = (part.reshape(-1, 1) for part in np.meshgrid(np.arange(5.0), np.arange(5.0)))
    apart = goal - here
    with torch.no_grad():
        state = agent.learner.state(torch.tensor(here).float(), torch.tensor(goal).float())
        values = agent.learner.v(state[None])[0, :, 0].numpy()
    expected = -(1 - GAMMA ** np.abs(apart[:, 0])) / (1 - GAMMA)
    assert np.corrcoef(values, expected)[0, 1] > 0.95
    again = GCIQLAgent.load(tmp_path / "gciql.safetensors")
    again.reset(goal=goal)
    actions, far = again.act(here)[:, 0], apart[:, 0] != 0
    assert np.mean(np.sign(actions[far]) == np.sign(apart[far, 0])) > 0.9


def test_goals_are_drawn_by_ogbenchs_shares(walk):
    """Of places that are all different: here in 20%, later in 50%, anywhere in 30%; a policy's goals lie ahead."""
    numbers = np.arange(1_001, dtype=np.float32)[:, None]
    data = Trajectories(numbers[:-1], walk.actions, walk.rewards, np.array([0, 500]), "numbers", features=walk.features)
    s, _, r, _, terminated, goal, wanted = (
        p.numpy() for p in Relabeled(data, (0,), (0,), 0.9)(np.random.default_rng(0), 20_000)
    )
    ahead, now = goal[0, :, 0] - s[0, :, 0], s[0, :, 0]
    assert abs((ahead == 0).mean() - 0.2) < 0.02
    assert np.array_equal(r[0] == 0, terminated[0] == 1) and set(r[0]) == {-1.0, 0.0} and (r[0][ahead != 0] == -1).all()
    later = (ahead > 0) & (ahead < 50)
    assert abs(later.mean() - 0.5 - 0.3 * 50 / 1_000) < 0.03 and abs(ahead[later].mean() - 10) < 1.5
    assert (wanted[0, :, 0] > now).all() and ((wanted[0, :, 0] < 500) == (now < 500)).all()
