"""Diffusion Policy on a task whose data go both ways: it goes one way or the other, and where it is sent."""

import numpy as np
import pytest
import torch

from dfplan.agents.diffusion_policy import (
    DiffusionPolicyAgent,
    DiffusionPolicyConfig,
    DiffusionPolicyModel,
    PolicyConfig,
    windows,
)
from dfplan.data.features import Features
from dfplan.data.trajectories import Trajectories
from dfplan.models import DecoderConfig, UNetConfig

STEPS, EPISODES = 8, 50
DECODER = DecoderConfig(width=16, depth=1, heads=2, octaves=0)
NETWORK = UNetConfig(width=16, multiples=(1,), octaves=0, film=True)


def both_ways():
    """From 0, all episodes go left or right by 1 a step, which no single observation of their start tells."""
    way = np.random.default_rng(0).choice([-1.0, 1.0], size=(EPISODES, 1, 1))
    place = way * np.arange(STEPS + 1)[:, None]
    return Trajectories(
        place[:, :-1].reshape(-1, 1).astype(np.float32),
        np.broadcast_to(way, (EPISODES, STEPS, 1)).reshape(-1, 1).astype(np.float32),
        np.zeros(EPISODES * STEPS, np.float32),
        np.arange(0, EPISODES * STEPS, STEPS),
        "both ways",
        last_observations=place[:, -1].astype(np.float32),
        features=Features(goal_columns=(0,)),
    )


def trained(steps=100, **changes):
    torch.manual_seed(0)
    config = DiffusionPolicyConfig(1, 1, predicted=4, network=NETWORK, levels=16, **changes)
    agent = DiffusionPolicyAgent(DiffusionPolicyModel(config), PolicyConfig(executed=3, steps=4))
    agent.learner.fit_statistics(both_ways())
    source, rng = windows(both_ways(), config), np.random.default_rng(0)
    agent._optimizer = torch.optim.Adam(agent.learner.parameters(), lr=5e-3)
    for _ in range(steps):
        agent.update(source(rng, 32))
    return agent


def drive(agent, rows, goal=None):
    place, path = np.zeros((rows, 1)), []
    agent.reset(goal=goal, seed=0)
    for _ in range(6):
        place = place + agent.act(place)
        path.append(place[:, 0])
    return np.stack(path, axis=1)


@pytest.mark.parametrize("changes", [{}, {"observed": 3, "every": 2, "decoder": DECODER}])
def test_it_draws_one_of_two_ways_where_their_mean_is_none(tmp_path, changes):
    agent = trained(**changes)
    agent.save(tmp_path / "policy.safetensors")
    ends = drive(DiffusionPolicyAgent.load(tmp_path / "policy.safetensors"), 40)[:, -1]
    assert np.mean(np.abs(ends) > 3) > 0.85, "an average of both ways would stay at 0"
    assert 5 < (ends > 0).sum() < 35


@pytest.mark.parametrize("decoder", [None, DECODER])
def test_it_goes_to_the_goal_that_it_is_given(decoder):
    agent = trained(goal_columns=(0,), goal_within=STEPS, decoder=decoder)
    with pytest.raises(ValueError, match="DiffusionPolicyAgent: this agent needs a goal"):
        agent.reset(seed=0)
        agent.act([0.0])
    way = np.repeat([[-6.0], [6.0]], 10, axis=0)
    assert np.mean(np.sign(drive(agent, 20, way)[:, -1]) == np.sign(way[:, 0])) > 0.9


def test_every_second_observation_is_seen_and_no_other():
    policy = trained(steps=0, observed=3, every=2, decoder=DECODER).learner
    torch.nn.init.normal_(policy.network.out.weight)
    seen, drawn = torch.randn(1, 5, 1), []
    for step in range(5):
        other = seen.clone()
        other[:, step] += 1
        one, two = (
            policy.draw(x, None, PolicyConfig(steps=1), torch.Generator().manual_seed(0)) for x in (other, seen)
        )
        drawn.append(torch.equal(one, two))
    assert drawn == [False, True, False, True, False]


def test_a_row_that_begins_anew_sees_no_former_episode():
    agent = trained(steps=1)
    agent.reset(seed=0)
    for _ in range(2):
        agent.act(np.full((2, 1), 5.0))
    agent.forget([1])
    agent.act(np.array([[6.0], [0.0]]))
    assert agent._seen[:, :, 0].tolist() == [[5.0, 6.0], [0.0, 0.0]] and agent._clock.tolist() == [3, 1]


def test_more_actions_than_are_predicted_cannot_be_executed():
    with pytest.raises(ValueError, match="of 4 predicted actions at most these can be executed, got 5"):
        trained(steps=0).with_options(executed=5)
    with pytest.raises(ValueError, match="goals need both goal_columns and goal_within"):
        DiffusionPolicyConfig(3, 1, goal_columns=(0,))
