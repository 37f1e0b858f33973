import numpy as np
import pytest
import torch

from dfplan.agents.mppi import GoalCost, LearnedMPPIAgent, MPPIAgent, MPPIConfig
from dfplan.planning.dynamics import DynamicsConfig, DynamicsModel
from dfplan.training.checkpoint import CheckpointError, save_checkpoint


def point(states, actions):
    """A point that goes where it is sent: x' = x + u / 10, states (N, 2)."""
    return states[:, None] + np.cumsum(actions, axis=1) / 10


def drive(agent, state, steps, rollout=point):
    for _ in range(steps):
        state = rollout(state, agent.act(state)[:, None].astype(float))[:, 0, : state.shape[1]]
    return state


def test_one_update_is_the_papers_weighted_mean():
    """Recomputed from the same noise: u + sum_k w_k epsilon_k, w_k ~ exp(-(S_k + gamma u^T Sigma^-1 epsilon_k) / lambda)."""
    config = MPPIConfig(2, samples=7, controls=3, hold=2, sigma=0.5, temperature=0.4, gamma=0.2, limit=np.inf)
    agent, state, goal = MPPIAgent(point, GoalCost(), config), np.zeros((1, 2)), np.array([1.0, 0.5])
    agent.reset(goal, seed=3)
    rng, u = np.random.default_rng(3), np.zeros((3, 2))
    for plan in range(2):
        epsilon = 0.5 * rng.standard_normal((7, 3, 2))
        epsilon[0] = 0
        S = []
        for e in epsilon:
            x = state[0] + np.cumsum(np.repeat(u + e, 2, axis=0), axis=0) / 10
            S.append(np.linalg.norm(x - goal, axis=1).sum() + 0.2 * (u * e).sum() / 0.5**2)
        w = np.exp(-(np.array(S) - min(S)) / 0.4)
        u = u + np.tensordot(w / w.sum(), epsilon, 1)
        first = agent.act(state)
        np.testing.assert_allclose(first[0], u[0], rtol=1e-6)
        assert np.array_equal(agent.act(state), first), "a control is held"
        u = np.concatenate([u[1:], np.zeros((1, 2))])
        assert plan or np.abs(u).max() > 0, "the second plan starts from the shifted first one"


def test_rows_have_goals_and_sequences_of_their_own():
    goals = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, -2.0]])
    agent = MPPIAgent(point, GoalCost(arrival=0.05), MPPIConfig(2, samples=64, controls=5, hold=1))
    agent.reset(goals, seed=0)
    state = drive(agent, np.zeros((3, 2)), 40)
    assert np.linalg.norm(state - goals, axis=1).max() < 0.15
    assert agent.last_plan.observations.shape == (3, 6, 1, 2) and agent.last_plan.lengths.tolist() == [5, 5, 5]
    agent.forget([1], [[2.0, 2.0]])
    state = drive(agent, state, 60)
    assert np.linalg.norm(state - [[1.0, 0.0], [2.0, 2.0], [0.0, -2.0]], axis=1).max() < 0.15


def test_actions_keep_the_limit_and_repeat_with_the_seed():
    agent = MPPIAgent(point, GoalCost(), MPPIConfig(2, samples=16, controls=4, sigma=5.0, limit=0.7))
    runs = []
    for _ in range(2):
        agent.reset((9.0, 9.0), seed=5)
        runs.append([agent.act(np.zeros(2)) for _ in range(9)])
    assert np.array_equal(*runs) and np.abs(runs).max() <= np.float32(0.7)
    assert runs[0][0].shape == (2,) and runs[0][0].dtype == np.float32


def test_learned_dynamics_plan_save_and_load(tmp_path):
    torch.manual_seed(0)
    learner = DynamicsModel(DynamicsConfig(4, 2, width=16, octaves=1))
    config = MPPIConfig(2, samples=8, controls=3, hold=2)
    agent = LearnedMPPIAgent(learner, config, {"name": "small"})
    agent.save(tmp_path / "w.safetensors")
    loaded = LearnedMPPIAgent.load(tmp_path / "w.safetensors")
    assert loaded.config == config and loaded.card == {"name": "small"} and loaded.parameters == agent.parameters > 0
    for each in (agent, loaded):
        each.reset((1.0, 2.0), seed=1)
    observation = np.random.default_rng(0).normal(size=(3, 4))
    assert np.array_equal(agent.act(observation), loaded.act(observation))
    batch = np.random.default_rng(1).normal(size=(32, 2, 4)), np.zeros((32, 2, 2))
    first = agent.update(batch)["loss"]
    assert [agent.update(batch)["loss"] for _ in range(20)][-1] < first


def test_foreign_files_are_refused(tmp_path):
    save_checkpoint(tmp_path / "w.safetensors", {"w": torch.zeros(1)}, {"kind": "other"})
    with pytest.raises(CheckpointError, match="not the weights of 'dynamics'"):
        LearnedMPPIAgent.load(tmp_path / "w.safetensors")
    header = {"kind": "dynamics", "config": {"observation_dim": 4, "action_dim": 2, "depth": 1}, "card": {}}
    save_checkpoint(tmp_path / "v.safetensors", {"w": torch.zeros(1)}, header)
    with pytest.raises(CheckpointError, match=r"cannot build: config\.depth is unknown here"):
        LearnedMPPIAgent.load(tmp_path / "v.safetensors")


def test_where_no_sample_is_finite_an_error_says_so():
    config = MPPIConfig(2, samples=4, controls=2)
    for rollout, cost in (
        (lambda states, actions: np.nan * point(states, actions), lambda states, goals: np.zeros(states.shape[:2])),
        (point, lambda states, goals: np.full(states.shape[:2], np.nan)),
    ):
        agent = MPPIAgent(rollout, cost, config)
        agent.reset(np.zeros(2))
        with pytest.raises(ValueError, match="none of the 4 sampled futures is finite"):
            agent.act(np.zeros(2))
    agent = MPPIAgent(point, lambda states, goals: np.zeros(4), config)
    agent.reset(np.zeros(2))
    with pytest.raises(ValueError, match=r"must be \(1, 4\), got \(4,\)"):
        agent.act(np.zeros(2))


def test_bad_input():
    agent = MPPIAgent(point, GoalCost(), MPPIConfig(2, samples=2, controls=2))
    with pytest.raises(ValueError, match=r"needs a goal: call reset"):
        agent.act(np.zeros(2))
    agent.reset((0.0, 0.0))
    with pytest.raises(ValueError, match="finite"):
        agent.act(np.full(2, np.nan))
    with pytest.raises(ValueError, match="a goal for each row"):
        agent.forget([0], [[1.0, 1.0]])
    with pytest.raises(ValueError, match="samples must be greater than or equal to 1"):
        MPPIConfig(2, samples=0)
    with pytest.raises(ValueError, match="temperature must be greater than 0"):
        MPPIConfig(2, temperature=0.0)
