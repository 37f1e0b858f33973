"""Diffusion Veteran: its data, its choice among plans, its acts, and its answers to mistakes."""

import numpy as np
import pytest
import torch

from dfplan.agents import diffusion_veteran
from dfplan.agents.diffusion_veteran import (
    DiffusionVeteranAgent,
    Veteran,
    VeteranConfig,
    VeteranModelConfig,
)
from dfplan.data.sparse_paths import GoalPaths
from dfplan.data.trajectories import Trajectories
from dfplan.models import TransformerConfig
from dfplan.training.checkpoint import CheckpointError, save_checkpoint

START = np.array([3.0, 1.0, 0.0, 0.0])
SMALL = TransformerConfig(width=16, depth=1, heads=2, octaves=2)
MODEL = VeteranModelConfig(4, 2, (0, 1), tokens=5, stride=2, denoiser=SMALL, critic=SMALL, levels=8, inverse_levels=3)


def line(episodes=2, length=40, visit=(20, 25)):
    """Episodes that drive along x at one unit a step and are rewarded within the steps of the visit."""
    steps = np.arange(episodes * length)
    x = (steps % length).astype(np.float32)
    observations = np.stack([x, 0 * x, 0 * x + 1, 0 * x], axis=1)
    actions = np.stack([np.sin(x), np.cos(x)], axis=1).astype(np.float32)
    rewards = ((x >= visit[0]) & (x < visit[1])).astype(np.float32)
    return Trajectories(observations, actions, rewards, np.arange(0, episodes * length, length), "a line")


@pytest.fixture
def learner():
    torch.manual_seed(0)
    learner = Veteran(MODEL)
    learner.fit_statistics(line())
    return learner


@pytest.fixture
def agent(learner):
    return DiffusionVeteranAgent(learner, VeteranConfig(candidates=4, steps=2, replan_every=3))


def test_ways_to_the_goal_begin_at_most_a_window_before_it_and_never_after():
    data = line()
    paths = GoalPaths(data, tokens=5, stride=2, discount=1.0)
    assert paths.starts.tolist() == [*range(12, 25), *range(52, 65)]


def test_a_window_follows_the_data_to_the_middle_of_the_visit_and_stays_at_the_goal():
    paths = GoalPaths(line(), tokens=8, stride=2, discount=1.0)
    plans, returns, *_ = paths.sample(np.random.default_rng(0), 500)
    assert np.allclose(paths.hold, [22.0, 0.0, 1.0, 0.0])
    for plan, value in zip(plans[:, :, 0], returns, strict=True):
        start = plan[0]
        drive = start + 2 * np.arange(8)
        assert np.allclose(plan, np.where((drive <= 22) | (np.arange(8) == 0), drive, 22))
        assert np.isclose(value, 1 - 2 * max(20 - start, 0) / 14)


def test_a_discount_bends_the_returns():
    """sum_{n' < n} gamma^n' = (1 - gamma^n) / (1 - gamma), scaled so that the longest way is worth -1."""
    paths, gamma = GoalPaths(line(), tokens=5, stride=2, discount=0.5), 0.5
    n = np.maximum(20 - paths.starts % 40, 0)
    assert np.allclose(paths.returns, 1 - 2 * (1 - gamma**n) / (1 - gamma**8), atol=1e-6)


def test_no_window_reaches_into_the_next_episode():
    data = line(visit=(2, 4))
    paths = GoalPaths(data, tokens=8, stride=2, discount=1.0)
    assert paths.starts.tolist() == [0, 1, 2, 3, 40, 41, 42, 43]
    first = paths.pairs.first
    assert (first + 2 < np.where(first < 40, 40, 80)).all()
    cut = GoalPaths(line(visit=(38, 40)), tokens=3, stride=2, discount=1.0)
    assert (cut.starts + cut.kept < np.where(cut.starts < 40, 40, 80)).all()


def test_pairs_are_a_stride_apart_and_carry_the_first_ones_action():
    _, _, s, targets, actions = GoalPaths(line(), 5, 2, 1.0).sample(np.random.default_rng(0), 20)
    assert np.allclose(targets[..., 0] - s[..., 0], 2)
    assert np.allclose(actions[..., 0], np.sin(s[..., 0]), atol=1e-6)


def test_the_candidate_of_the_largest_value_is_chosen(learner):
    learner.critic.forward = lambda plans: plans[:, -1, 0]  # the farther the end, the better
    seen, chosen = [], []
    learner.critic.register_forward_hook(lambda module, given, values: seen.append(values))
    start = torch.arange(12.0).view(3, 4) / 2
    for candidates in (1, 64):
        plan = learner.plan(start, candidates, 2, torch.Generator().manual_seed(0))
        assert plan.tokens.shape == (3, 5, 4) and len(seen[-1]) == 3 * candidates
        assert torch.allclose(plan.observations[:, 0, 0], start, atol=1e-4), "every plan begins where it is"
        assert torch.equal(plan.scores["value"], seen[-1].view(3, candidates).max(dim=1).values)
        assert torch.equal(plan.scores["value"], plan.tokens[:, -1, 0]), "and is the one that the value is of"
        chosen.append(float(plan.scores["value"].mean()))
    assert chosen[1] > chosen[0]


def test_a_value_or_a_plan_that_is_not_finite_is_never_chosen(learner):
    def values(plans):
        found = plans[:, -1, 0].clone()
        found[found == found.max()] = torch.nan  # the farthest of all
        found[found.nan_to_num().argmax()] = torch.inf
        return found

    learner.critic.forward, seen = values, []
    learner.critic.register_forward_hook(lambda module, given, found: seen.append(found))
    plan = learner.plan(torch.zeros(1, 4), 16, 2, torch.Generator().manual_seed(0))
    assert int(seen[0].isfinite().sum()) == 14
    assert float(plan.tokens[0, -1, 0]) == float(plan.scores["value"]) == float(seen[0][seen[0].isfinite()].max())
    learner.critic.forward = lambda plans: torch.full((len(plans),), torch.nan)
    with pytest.raises(ValueError, match="none of the 16 candidate plans is finite"):
        learner.plan(torch.zeros(1, 4), 16, 2, torch.Generator().manual_seed(0))


def test_losses_have_gradients_only_where_they_belong(learner):
    """One loss at a time, each given to `total` before it is summed: each moves its own network and no other."""
    drawn = GoalPaths(line(), MODEL.tokens, MODEL.stride, MODEL.discount).sample(np.random.default_rng(0), 8)
    batch = tuple(map(torch.as_tensor, drawn))
    parts = {"diffusion", "critic", "inverse"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion_veteran, "total", lambda losses: losses)
        losses = learner(batch, torch.Generator().manual_seed(0))
    assert losses.keys() == parts
    for name, loss in losses.items():
        learner.zero_grad()
        loss.backward(retain_graph=True)
        moved = {
            n.partition(".")[0] for n, p in learner.named_parameters() if p.grad is not None and bool(p.grad.any())
        }
        assert moved == {name}
    found = learner(batch, torch.Generator().manual_seed(0))
    assert found.keys() == {"loss", *parts}
    assert np.isclose(float(found["loss"].detach()), sum(float(loss.detach()) for loss in losses.values()), rtol=1e-5)


def test_it_learns_to_drive_the_line(learner):
    """After some updates the plans go on along x as the data do, and the critic prefers to be nearer to the goal."""
    agent, rng = DiffusionVeteranAgent(learner, VeteranConfig(candidates=4, steps=4)), np.random.default_rng(0)
    source = GoalPaths(line(), MODEL.tokens, MODEL.stride, MODEL.discount).sample
    losses = [agent.update(source(rng, 32))["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    plans, returns, *_ = source(rng, 64)
    with torch.no_grad():
        values = learner.critic(learner.observation.normalize(torch.as_tensor(plans)))
    assert np.corrcoef(values, returns)[0, 1] > 0.8


def test_one_observation_and_a_batch(agent):
    agent.reset(goal=[22.0, 0.0], seed=0)
    one = agent.act(START)
    agent.reset(seed=0)
    many = agent.act(np.stack([START, START + 1, START]))
    assert one.shape == (2,) and many.shape == (3, 2) and one.dtype == many.dtype == np.float32
    low, high = agent.learner.action_low.numpy(), agent.learner.action_high.numpy()
    assert (many >= low - 1e-6).all() and (many <= high + 1e-6).all()
    assert agent.last_plan.observations.shape == (3, 5, 1, 4) and agent.last_plan.lengths.tolist() == [4, 4, 4]
    assert np.allclose(agent.last_plan.observations[:, 0, 0], np.stack([START, START + 1, START]), atol=1e-4)
    assert agent.last_plan.scores["value"].shape == (3,)


def test_the_target_is_always_a_stride_ahead_on_the_plan(agent, monkeypatch):
    targets, inverse = [], agent.learner.inverse
    draw = inverse.sample
    monkeypatch.setattr(inverse, "sample", lambda s, target, *rest: targets.append(target) or draw(s, target, *rest))
    agent.reset(seed=0)
    for _ in range(3):
        agent.act(START)
    plan = agent.learner.observation.normalize(agent.last_plan.observations[0, :, 0])
    expected = [plan[1], (plan[1] + plan[2]) / 2, plan[2]]
    for target, at in zip(targets, expected, strict=True):
        assert torch.allclose(target[0], at, atol=1e-5)


def test_plans_are_remade_when_due_and_rows_can_begin_anew(agent):
    made = []

    def act(steps):
        for _ in range(steps):
            before = agent.last_plan
            agent.act(np.stack([START, START]))
            made.append(0 if agent.last_plan is before else len(agent.last_plan))

    agent.reset(seed=0)
    act(5)
    agent.forget([1])
    act(3)
    assert made == [2, 0, 0, 2, 0, 1, 1, 0], "the first row's next plan is due a step after the other's first"


def test_same_seed_same_actions(agent):
    def actions(seed):
        agent.reset(seed=seed)
        return np.stack([agent.act(START) for _ in range(4)])

    assert (actions(1) == actions(1)).all()
    assert (actions(1) != actions(2)).any()


def test_a_saved_agent_comes_back_rounded_once(agent, tmp_path):
    agent.card["command"] = "a test"
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    agent.save(first)
    other = DiffusionVeteranAgent.load(first)
    assert other.config == agent.config and other.learner.config == MODEL and other.card == agent.card
    other.save(second)
    assert first.read_bytes() == second.read_bytes()
    for name, tensor in agent.learner.state_dict().items():
        assert torch.allclose(other.learner.state_dict()[name], tensor, rtol=1e-3, atol=1e-6), name
    assert other.parameters == agent.parameters > 0


def test_files_of_others_are_refused(agent, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {}, {"kind": "trajectory_model"})
    with pytest.raises(CheckpointError, match="not the weights of 'diffusion_veteran'"):
        DiffusionVeteranAgent.load(path)
    agent.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        DiffusionVeteranAgent.load(path)
    config = {"observation_dim": 4, "action_dim": 2}
    save_checkpoint(path, {}, {"kind": "diffusion_veteran", "config": config, "agent": {}, "card": {}})
    with pytest.raises(CheckpointError, match=r"do not fit Veteran: .* missing"):
        DiffusionVeteranAgent.load(path)


def test_mistakes_get_a_sentence(agent):
    with pytest.raises(ValueError, match=r"\(4,\) or \(batch, 4\)"):
        agent.act(np.zeros(3))
    with pytest.raises(ValueError, match=r"the observation must be .* got NaN or infinity"):
        agent.act(np.array([np.nan, 0, 0, 0]))
    with pytest.raises(ValueError, match="trained for one goal"):
        agent.reset(goal=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"the goal must be \(2,\)"):
        agent.reset(goal=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="candidates"):
        VeteranConfig(candidates=0)
    with pytest.raises(ValueError, match="unknown option"):
        agent.with_options(candidate=3)
    with pytest.raises(ValueError, match="tokens"):
        VeteranModelConfig(4, 2, tokens=1)
    with pytest.raises(ValueError, match="discount"):
        VeteranModelConfig(4, 2, discount=0.0)
    silent = line(visit=(0, 0))
    with pytest.raises(ValueError, match="no step is rewarded"):
        GoalPaths(silent, 5, 2, 1.0)
    with pytest.raises(ValueError, match="longer than the stride"):
        GoalPaths(line(), 5, 40, 1.0)
