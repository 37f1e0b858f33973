"""Diffuser: what is known of a plan, how it is followed in either execution, and value guidance."""

import numpy as np
import pytest
import torch
from sequence_toy import NETWORK, TOKENS, batches_of, drives, fixture, layout

from dfplan.agents.diffuser import DiffuserAgent, DiffuserAgentConfig, DiffuserConfig, DiffuserModel
from dfplan.planning.execution import Following, by_pd
from dfplan.planning.plan import Plan
from dfplan.training.checkpoint import CheckpointError, save_checkpoint

START = np.array([0.1, -0.2, 0.0, 0.0], dtype=np.float32)
GOAL = np.array([0.3, 0.1], dtype=np.float32)


def build(**changes):
    torch.manual_seed(0)
    shape = {"tokens": TOKENS, "levels": 16, "network": NETWORK, "prediction": "x0"}
    config = DiffuserConfig(layout(actions=True), goal_columns=(0, 1), **shape, **changes)
    return DiffuserAgent(DiffuserModel(config), DiffuserAgentConfig(steps=8, execution="pd", velocity_columns=(2, 3)))


to_goals, to_returns = fixture(build), fixture(build, towards="return")


def test_pd_tracks_the_next_waypoint_and_holds_the_end_at_rest():
    """a = p' - p + v' - v; beyond the end, v' = 0."""
    observation, path = torch.tensor([[1.0, 2.0, 0.5, -0.5]]), torch.zeros(1, 3, 4)
    path[0, 1:] = torch.tensor([[2.0, 4.0, 1.0, 1.0], [3.0, 3.0, 2.0, 2.0]])
    following = Following.start(1, 2, 4, torch.device("cpu"))
    following.put(torch.tensor([0]), path, 1)
    held = [[2.0 - 0.5, 1.0 + 0.5]]
    for clock, expected in ((0, [[1.0 + 0.5, 2.0 + 1.5]]), (1, [[2.0 + 1.5, 1.0 + 2.5]]), (2, held), (50, held)):
        following.clock[:] = clock
        assert by_pd(observation, following, (0, 1), (2, 3)).tolist() == expected


def test_an_agent_follows_its_plan_by_pd(to_goals):
    agent, _ = to_goals
    agent.reset(goal=GOAL, seed=0)
    actions = np.stack([agent.act(START) for _ in range(20)])
    path = agent.last_plan.observations[0, 1:].reshape(-1, 4).numpy()  # the steps after the start
    path = np.concatenate([path, np.tile(path[-1:] * [1, 1, 0, 0], (6, 1))])  # its end is held at rest
    expected = path[:, :2] - START[:2] + path[:, 2:] - START[2:]
    low, high = agent.learner.action_low.numpy(), agent.learner.action_high.numpy()
    assert np.allclose(actions, expected.clip(low, high), atol=1e-5)


def test_diffused_actions_are_played_in_their_order_and_then_none(to_goals):
    agent = to_goals[0].with_options(execution="diffused_actions")
    agent.reset(goal=GOAL, seed=0)
    played = np.stack([agent.act(START) for _ in range(17)])
    low, high = agent.learner.action_low.numpy(), agent.learner.action_high.numpy()
    assert np.array_equal(played[:14], agent.last_plan.actions[0].numpy().clip(low, high)) and played[:14].any()
    assert not played[14:].any()


def test_a_plan_is_inpainted_between_start_and_goal(to_goals):
    agent, _ = to_goals
    goals = 0.6 * np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32)
    plan = agent.plan(np.repeat(START[None], 32, axis=0), goals)
    assert isinstance(plan, Plan) and plan.lengths.tolist() == [TOKENS - 1] * 32
    assert torch.allclose(plan.observations[:, 0, -1], torch.from_numpy(START).expand(32, -1), atol=1e-5)
    assert np.allclose(plan.observations[:, -1, -1, :2], goals, atol=1e-5)
    assert plan.actions.shape == (32, 14, 2)
    halfway = plan.observations[:, TOKENS // 2, -1, :2].numpy()
    straight = START[:2] + (goals - START[:2]) * 8 / 14
    missed = np.linalg.norm(halfway - straight, axis=1).mean()
    assert missed < 0.85 * np.linalg.norm(halfway[::-1] - straight, axis=1).mean(), (
        "what lies between belongs to the ends"
    )


def test_training_lowers_the_loss(to_goals, to_returns):
    for _, losses in (to_goals, to_returns):
        assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])


def test_the_known_tokens_are_no_part_of_the_loss():
    """A network that gets all but the ends right has no loss, whatever it says of these."""
    agent = build()
    data = drives()
    agent.learner.fit_statistics(data)
    batch = tuple(torch.as_tensor(part) for part in batches_of(agent.learner, data)(np.random.default_rng(0), 4))
    model = agent.learner
    truth = model.config.layout.pack(model.observation.normalize(batch[0]), model.action.normalize(batch[1]))
    truth[:, 0] += 5.0
    truth[:, -1] -= 5.0
    model.diffusion.model = Answer(truth)
    assert float(model(batch, torch.Generator().manual_seed(0))["diffusion"]) == 0.0
    truth[:, 1] += 1.0
    assert float(model(batch, torch.Generator().manual_seed(0))["diffusion"]) > 0.1


class Answer(torch.nn.Module):
    def __init__(self, truth):
        super().__init__()
        self.truth = truth

    def forward(self, x, k):
        return self.truth


def test_value_guidance_raises_the_value_of_plans(to_returns):
    agent, _ = to_returns
    found = []
    for scale in (0.0, 1.0, 4.0):
        guided = agent.with_options(scale=scale)
        guided.reset(seed=0)
        plan = guided.plan(np.repeat(START[None], 32, axis=0))
        found.append(float(plan.observations[:, 1:, :, 0].mean()))  # the reward is x
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (lambda tau: torch.zeros(len(tau), 1) * tau.sum(), r"shape \(1, 1\)"),
        (lambda tau: torch.zeros(len(tau)), "constant or detached"),
        (lambda tau: tau.sum((1, 2)) * torch.nan, "returned nan"),
    ],
)
def test_a_value_is_a_guide_and_checked_as_one(to_returns, monkeypatch, value, sentence):
    agent, _ = to_returns
    monkeypatch.setattr(agent.learner.J, "forward", value)
    with pytest.raises(ValueError, match=f"one finite, differentiable cost for each sequence.*{sentence}"):
        agent.plan(START)


def test_a_planner_to_returns_needs_no_goal_and_one_to_goals_does(to_returns):
    agent, _ = to_returns
    agent.reset(goal=np.zeros(2), seed=0)
    assert agent.act(START).shape == (2,)
    with pytest.raises(ValueError, match="needs a goal"):
        build().act(START)


def test_both_executions_keep_the_action_limits_and_say_what_they_are(to_goals):
    agent, _ = to_goals
    low, high = agent.learner.action_low.numpy(), agent.learner.action_high.numpy()
    for options, words in (({}, "PD"), ({"execution": "diffused_actions"}, "diffused actions")):
        acting = agent.with_options(**options)
        acting.reset(goal=np.array([50.0, 50.0]), seed=0)
        actions = np.stack([acting.act(START) for _ in range(20)])
        assert words in acting.execution
        assert (actions >= low).all() and (actions <= high).all()


def test_save_and_load_keep_weights_and_config(to_goals, tmp_path):
    agent = to_goals[0].with_options(execution="diffused_actions", steps=4)
    agent.card = {"command": "a test"}
    agent.save(tmp_path / "a.safetensors")
    other = DiffuserAgent.load(tmp_path / "a.safetensors")
    assert other.config == agent.config and other.learner.config == agent.learner.config and other.card == agent.card
    for one in (agent, other):
        one.reset(goal=np.array([0.3, 0.1]), seed=3)
    assert (agent.act(START) == other.act(START)).all()


def test_mistakes_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="hold no actions"):
        config = DiffuserConfig(layout(actions=False), tokens=TOKENS, goal_columns=(0, 1), network=NETWORK)
        DiffuserAgent(DiffuserModel(config), DiffuserAgentConfig(execution="diffused_actions"))
    with pytest.raises(ValueError, match="execution must be"):
        DiffuserAgentConfig(execution="inverse")
    with pytest.raises(ValueError, match="one velocity column for each action"):
        build().with_options(velocity_columns=(2,))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        DiffuserAgent.load(tmp_path / "missing.safetensors")
    save_checkpoint(tmp_path / "other.safetensors", {}, {"kind": "iql"})
    with pytest.raises(CheckpointError, match="'iql', not the weights of 'diffuser'"):
        DiffuserAgent.load(tmp_path / "other.safetensors")
    save_checkpoint(tmp_path / "newer.safetensors", {}, {"kind": "diffuser", "config": {"tokens": 3}, "card": {}})
    with pytest.raises(CheckpointError, match=r"cannot build: config\.layout is missing"):
        DiffuserAgent.load(tmp_path / "newer.safetensors")
