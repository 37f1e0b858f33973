"""What full-sequence planners share: when they plan, for which rows, and their answers to mistakes."""

import numpy as np
import pytest
import torch
from sequence_toy import NETWORK, TOKENS, layout

from dfplan.agents.diffuser import DiffuserAgent, DiffuserAgentConfig, DiffuserConfig, DiffuserModel
from dfplan.agents.full_sequence import SequenceAgentConfig
from dfplan.config_json import config_from_json, config_to_json
from dfplan.planning.full_sequence import SequenceConfig

START = np.array([0.1, -0.2, 0.0, 0.0])
GOAL = np.array([0.5, 0.5])


@pytest.fixture
def agent():
    torch.manual_seed(0)
    config = DiffuserConfig(layout(actions=True), tokens=TOKENS, goal_columns=(0, 1), levels=8, network=NETWORK)
    return DiffuserAgent(DiffuserModel(config), DiffuserAgentConfig(steps=2, execution="pd", velocity_columns=(2, 3)))


def planned_rows(agent, observation, steps):
    """At which of some steps the agent makes a plan, and of how many rows."""
    made = {}
    for step in range(steps):
        before = agent.last_plan
        agent.act(observation)
        if agent.last_plan is not before:
            made[step] = len(agent.last_plan)
    return made


def test_it_plans_once_an_episode_however_long_it_is(agent):
    for _ in range(2):
        agent.reset(goal=GOAL, seed=0)
        assert planned_rows(agent, START, 40) == {0: 1}


def test_it_plans_anew_every_so_many_steps_and_in_rows_that_begin(agent):
    agent, batch = agent.with_options(replan_every=3), np.stack([START, START])
    agent.reset(goal=np.stack([GOAL, GOAL]), seed=0)
    assert planned_rows(agent, batch, 5) == {0: 2, 3: 2}
    agent.forget([1], -GOAL[None])
    assert planned_rows(agent, batch, 1) == {0: 1}
    assert np.allclose(agent.last_plan.observations[0, -1, -1, :2], -GOAL, atol=1e-5)
    assert planned_rows(agent, batch, 3) == {0: 1, 2: 1}, "each row has a clock of its own"


def test_each_row_has_its_own_goal(agent):
    """All of a row's plan, not only its end, is the one to its own goal."""
    for parameter in agent.learner.parameters():
        torch.nn.init.normal_(parameter, std=0.2)

    def between(goals):
        agent.reset(goal=goals, seed=0)
        agent.act(np.stack([START, START]))
        return agent.last_plan.observations[:, 1:-1]

    apart, same, opposite = between(np.stack([GOAL, -GOAL])), between(GOAL), between(-GOAL)
    assert torch.allclose(apart[0], same[0], atol=1e-4) and torch.allclose(apart[1], opposite[1], atol=1e-4)
    assert not torch.allclose(same, opposite, atol=1e-2), "the goal decides about what lies between"


def test_same_seed_same_plan(agent):
    for parameter in agent.learner.parameters():
        torch.nn.init.normal_(parameter, std=0.2)

    def drawn(seed):
        agent.reset(goal=GOAL, seed=seed)
        assert agent.act(START).dtype == np.float32
        return agent.last_plan.actions

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    agent = agent.with_options(temperature=0.0)
    assert torch.equal(drawn(1), drawn(2)), "without noise there is one plan"


def test_a_config_comes_back_from_its_header(agent):
    config = agent.learner.config
    assert config_from_json(DiffuserConfig, config_to_json(config)) == config


def test_mistakes_get_a_sentence(agent):
    # What all agents refuse alike is in test_base.
    agent.reset(goal=GOAL)
    with pytest.raises(ValueError, match="a goal for each row"):
        agent.forget([0], GOAL[None])
    with pytest.raises(ValueError, match=r"eta must be less"):
        SequenceAgentConfig(eta=2.0)
    with pytest.raises(ValueError, match="a token between"):
        SequenceConfig(layout(actions=True), tokens=2, goal_columns=(0, 1))
    with pytest.raises(ValueError, match="towards must be 'goal', 'return' or 'nothing'"):
        SequenceConfig(layout(actions=True), towards="fame")
    for columns in ((4,), (-1,), (0, 0)):
        with pytest.raises(ValueError, match=r"goal_columns must be different columns of the observation, in 0\.\.3"):
            SequenceConfig(layout(actions=True), goal_columns=columns)
    with pytest.raises(ValueError, match="goal_columns must name at least one"):
        SequenceConfig(layout(actions=True), goal_columns=())
