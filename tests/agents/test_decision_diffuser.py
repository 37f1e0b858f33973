"""Decision Diffuser: classifier-free guidance, conditions on goals and returns, inverse dynamics."""

import numpy as np
import pytest
import torch
from sequence_toy import NETWORK, TOKENS, batches_of, drives, fixture, layout

from dfplan.agents.decision_diffuser import (
    DecisionDiffuserAgent,
    DecisionDiffuserAgentConfig,
    DecisionDiffuserConfig,
    DecisionDiffuserModel,
)
from dfplan.models import Conditioned
from dfplan.planning.ask import Ask
from dfplan.planning.execution import each_step

START = np.array([0.1, -0.2, 0.0, 0.0], dtype=np.float32)


def build(**changes):
    torch.manual_seed(0)
    shape = {"tokens": TOKENS, "goal_columns": (0, 1), "levels": 16, "network": NETWORK, "gap": 2}
    config = DecisionDiffuserConfig(layout(actions=False), **shape | changes)
    return DecisionDiffuserAgent(DecisionDiffuserModel(config), DecisionDiffuserAgentConfig(steps=8))


to_goals, to_returns = fixture(build), fixture(build, towards="return")


@torch.no_grad()
def test_guidance_is_affine_in_omega_between_no_condition_and_the_given_one(to_goals):
    model = to_goals[0].learner
    g = torch.Generator().manual_seed(0)
    x, k, y = torch.randn(3, TOKENS, 4, generator=g), torch.full((3, TOKENS), 9), torch.randn(3, 2, generator=g)
    free, given = model.network(x, k), model.network(x, k, y)
    assert not torch.allclose(free, given, atol=1e-3)
    for omega in (0.0, 0.5, 1.0, 3.0):
        assert torch.allclose(Conditioned(model.network, y, omega)(x, k), free + omega * (given - free), atol=1e-5)


def test_plans_begin_at_the_start_and_end_near_their_goals(to_goals):
    agent, losses = to_goals
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])
    goals = np.random.default_rng(1).normal(size=(32, 2)) * 0.6
    plan = agent.plan(np.repeat(START[None], 32, axis=0), goals)
    assert torch.allclose(plan.observations[:, 0, 0], torch.from_numpy(START).expand(32, -1), atol=1e-5)
    ends = plan.observations[:, -1, 0, :2].numpy()
    miss = np.linalg.norm(ends - goals, axis=1).mean()
    assert miss < 0.75 * np.linalg.norm(ends - goals[::-1], axis=1).mean(), "ends belong to their own goals"


def test_a_higher_return_asked_for_is_a_higher_return_planned(to_returns):
    agent, _ = to_returns
    found = []
    for target in (-1.0, 0.0, 1.0):
        asking = agent.with_options(target=target, omega=1.0)
        asking.reset(seed=0)
        found.append(float(asking.plan(np.repeat(START[None], 32, axis=0)).observations[:, 1:, 0, 0].mean()))
    assert found[0] < found[1] < found[2]


def test_the_best_return_is_that_of_the_best_window(to_returns):
    data, model = drives(), to_returns[0].learner
    S = model.config.steps + 1
    starts = [s + i for s in data.episode_starts for i in range(16 - S + 1)]
    returns = np.array([data.rewards[s : s + S].sum() for s in starts])
    assert float(model.best_return) == pytest.approx(returns.max(), rel=1e-4)
    assert float(model.returns.mean) == pytest.approx(returns.mean(), abs=1e-4)
    observations, _, drawn, recorded = batches_of(model, data)(np.random.default_rng(0), 5)
    assert np.allclose(drawn, observations[..., 0].sum(1), atol=1e-4)  # the reward is x
    assert recorded.tolist() == [S] * 5
    agent = to_returns[0]
    with pytest.raises(ValueError, match=f"recorded steps must be whole numbers from 1 to {S}"):
        agent.update((observations, _, drawn, recorded + 1))


def test_the_target_of_inverse_dynamics_is_a_gap_ahead_and_then_rest(to_goals, monkeypatch):
    agent, targets = to_goals[0].with_options(), []
    monkeypatch.setattr(agent.learner, "act_towards", lambda s, target: targets.append(target) or torch.zeros(1, 2))
    agent.reset(goal=(0.5, 0.3), seed=0)
    for _ in range(20):
        agent.act(START)
    units, path = agent.learner.observation, each_step(agent.last_plan.observations, 2, 14)
    for step in (0, 5, 12):
        assert torch.allclose(targets[step], units.normalize(path[:, step + 2]), atol=1e-6)
    rest = units.mean.clone()  # velocities at their mean, which is about 0
    rest[:2] = path[0, -1, :2]
    for step in (13, 19):
        assert torch.allclose(targets[step], units.normalize(rest), atol=1e-6)


def test_a_return_can_be_asked_for_in_units_of_the_data(to_returns, to_goals):
    agent, _ = to_returns
    found = []
    for how in ({"ask": Ask(return_=0.3 * float(agent.learner.best_return))}, {}):
        acting = agent.with_options(target=0.3)
        acting.reset(seed=0, **how)
        found.append(acting.act(START))
    assert np.array_equal(*found)
    agent.reset(seed=0, ask=Ask(return_=-5.0))
    assert not np.allclose(agent.act(START), found[0], atol=1e-3)
    with pytest.raises(ValueError, match="cannot be asked for return_: expected only goal"):
        to_goals[0].plan(START, ask=Ask(goal=(0.1, 0.1), return_=1.0))


def test_dropout_hides_conditions_at_its_rate():
    """With every goal hidden from the loss's generator, the goal does not matter; with none, it does."""
    data = drives()
    for dropout, matters in ((0.0, True), (0.999999, False)):
        agent = build(dropout=dropout)
        agent.learner.fit_statistics(data)
        for parameter in agent.learner.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        seen = []
        given = agent.learner.given
        agent.learner.given = lambda y, given=given, seen=seen: seen.append(y) or given(y)
        batch = tuple(torch.as_tensor(p) for p in batches_of(agent.learner, data)(np.random.default_rng(0), 16))
        agent.learner(batch, torch.Generator().manual_seed(0))
        assert bool(seen[0].isfinite().all()) is matters and bool(seen[0].isnan().all()) is not matters


def test_save_and_load_keep_weights_and_config(to_goals, tmp_path):
    agent = to_goals[0].with_options(omega=2.0)
    agent.save(tmp_path / "a.safetensors")
    other = DecisionDiffuserAgent.load(tmp_path / "a.safetensors")
    assert other.config == agent.config and other.learner.config == agent.learner.config
    for one in (agent, other):
        one.reset(goal=np.array([0.3, 0.1]), seed=3)
    assert (agent.act(START) == other.act(START)).all()


def test_mistakes_get_a_sentence():
    with pytest.raises(ValueError, match="states only"):
        DecisionDiffuserConfig(layout(actions=True), goal_columns=(0, 1))
    with pytest.raises(ValueError, match=r"gap in 1\.\.14"):
        DecisionDiffuserConfig(layout(actions=False), tokens=TOKENS, goal_columns=(0, 1), gap=15)
    with pytest.raises(ValueError, match="omega"):
        DecisionDiffuserAgentConfig(omega=-1.0)
