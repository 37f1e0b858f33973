"""The Diffusion Forcing agent: policy and planner, one observation or many, and its answers to mistakes."""

import gymnasium
import numpy as np
import pytest
import torch

import dfplan.envs  # noqa: F401
from dfplan.agents.diffusion_forcing import AgentConfig, DiffusionForcingAgent
from dfplan.agents.loading import pretrained_names
from dfplan.data.tokens import TokenLayout
from dfplan.models import TransformerConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig

START = np.array([3.0, 1.0, 0.0, 0.0])
GOAL = np.array([1.0, 1.0])


@pytest.fixture(scope="module")
def shipped():
    return DiffusionForcingAgent.from_pretrained("maze2d-umaze")


@pytest.fixture
def small():
    torch.manual_seed(0)
    config = TrajectoryModelConfig(
        TokenLayout(4, 2, stride=2), tokens=5, levels=8, model=TransformerConfig(width=16, depth=1, heads=2), longest_gap=4
    )
    agent = DiffusionForcingAgent(TrajectoryModel(config), AgentConfig(lookahead=2, replan_every=3))
    return agent.with_options(horizons=4, steps=2)


def test_it_drives_to_the_goal_far_better_than_chance(shipped):
    env = gymnasium.make("maze2d-umaze-v1")
    returns = []
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        shipped.reset(goal=info["goal"], seed=seed)
        total, truncated = 0.0, False
        while not truncated:
            observation, reward, _, truncated, _ = env.step(shipped.act(observation))
            total += reward
        returns.append(total)
    assert min(returns) > 120  # random actions get about 36 on average


def test_the_same_weights_are_a_policy_without_a_goal(shipped):
    shipped.reset(seed=0)
    action = shipped.act(START)
    assert action.shape == (2,) and np.isfinite(action).all()
    assert shipped.last_plan.lengths.tolist() == [1]


def test_a_plan_begins_at_the_start_and_ends_at_the_goal(shipped):
    shipped.reset(seed=0)
    plan = shipped.plan(START, goal=GOAL)
    path, end = plan.observations[0, :, 0], int(plan.lengths[0])
    assert np.allclose(path[0], START, atol=1e-5)
    assert np.allclose(path[end, :2], GOAL, atol=1e-5)
    assert np.allclose(path[end:, :2], GOAL, atol=1e-5)
    assert plan.history[0][1].max() == 256 and int(plan.history[-1][1][0, : end + 1].max()) == 0


def test_a_horizon_is_kept(shipped):
    assert shipped.plan(START, goal=GOAL, horizon=100).lengths.tolist() == [13]
    with pytest.raises(ValueError, match="the horizon must be a whole number from 1 to 184"):
        shipped.plan(START, goal=GOAL, horizon=10_000)


def test_a_guide_bends_the_plan(shipped):
    def low(observations):
        return observations[..., 1].mean(-1)

    plain, bent = [], []
    for seed in range(4):
        for guide, found in ((None, plain), (lambda o: 3 * low(o), bent)):
            shipped.reset(seed=seed)
            found.append(float(low(shipped.plan(START, goal=GOAL, horizon=150, guide=guide).observations[:, :, 0])))
    assert np.mean(bent) < np.mean(plain)


def path_length(observations):
    return (observations[:, 1:, :2] - observations[:, :-1, :2]).square().sum(-1).sqrt().sum(-1)


def test_candidates_that_are_not_finite_are_left_out(shipped):
    """The length of a path has no gradient where it rests, as all candidates but the longest do."""
    shipped.reset(seed=0)
    with pytest.warns(UserWarning, match="not finite and are left out"):
        plan = shipped.with_options(goal="guided", scale=1.0, horizons=3).plan(START, goal=GOAL, guide=path_length)
    assert bool(plan.observations.isfinite().all()) and plan.lengths.tolist() == [23]


@pytest.mark.filterwarnings("ignore:some candidate")
def test_too_large_a_scale_is_an_error_and_never_nan(shipped):
    agent = shipped.with_options(goal="guided", guide="throughout", scale=1e20, horizons=2)
    agent.reset(goal=GOAL, seed=0)
    with pytest.raises(ValueError, match="none of the 2 candidate plans is finite"):
        agent.act(START)


def test_same_seed_same_actions(shipped):
    def actions(seed):
        shipped.reset(goal=GOAL, seed=seed)
        return np.stack([shipped.act(START) for _ in range(5)])

    assert (actions(1) == actions(1)).all()
    assert (actions(1) != actions(2)).any()


def test_plans_are_remade_when_due_and_rows_can_begin_anew(small):
    made = []
    plan = small._make_plan
    small._make_plan = lambda batch, *rest, **options: made.append(len(batch)) or plan(batch, *rest, **options)
    small.reset(goal=np.stack([GOAL, GOAL]), seed=0)
    batch = np.stack([START, START])
    for _ in range(4):
        small.act(batch)
    assert made == [2, 2]
    small.forget([1], GOAL[None])
    small.act(batch)
    assert made == [2, 2, 1]


def test_at_the_goal_it_stays_without_planning(small):
    small.reset(goal=GOAL, seed=0)
    for _ in range(3):
        small.act(START)
    small._make_plan = None  # any further plan would fail
    small.act(np.array([1.1, 1.0, 0.0, 0.0]))


def test_update_lowers_the_loss(small):
    rng = np.random.default_rng(0)
    batch = (rng.normal(size=(16, 9, 4)), rng.uniform(-1, 1, size=(16, 9, 2)))
    losses = [small.update(batch)["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_save_and_load_keep_weights_and_config(small, tmp_path):
    small.card["command"] = "a test"
    small.save(tmp_path / "a.safetensors")
    other = DiffusionForcingAgent.load(tmp_path / "a.safetensors")
    assert other.config == small.config and other.card["command"] == "a test"
    for agent in (small, other):
        agent.reset(goal=GOAL, seed=3)
    assert (small.act(START) == other.act(START)).all()


def test_mistakes_get_a_sentence(small):
    with pytest.raises(ValueError, match=r"observation must be \(4,\) or \(batch, 4\)"):
        small.act(np.zeros(3))
    with pytest.raises(ValueError, match=r"the observation must be .* got NaN or infinity"):
        small.act(np.array([np.nan, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"goal must be \(2,\)"):
        small.reset(goal=np.zeros(3))
    with pytest.raises(ValueError, match="unknown option"):
        small.with_options(sped=2.0)
    with pytest.raises(ValueError, match="expected one of maze2d-"):
        DiffusionForcingAgent.from_pretrained("maze2d-huge")
    with pytest.raises(ValueError, match="hold no actions"):
        small.with_options(execution="diffused_actions")
    assert {"maze2d-large", "maze2d-medium", "maze2d-umaze"} <= set(pretrained_names())
