"""What each value learner makes of a task that ends and of one that is merely cut off, from files to values."""

import dataclasses

import numpy as np
import pytest
import torch
from chain import END, GAMMA, STATES, values, write_d4rl, write_minari
from sequence_toy import NETWORK, batches_of

from dfplan.agents.diffuser import DiffuserConfig, DiffuserModel
from dfplan.agents.offline import awac, cql, iql, td3_bc
from dfplan.agents.offline.losses import q_values
from dfplan.data.readers import load
from dfplan.data.sparse_paths import GoalPaths
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Noise, Replay, Transitions
from dfplan.data.windows import ReturnWindows
from dfplan.models import TransformerConfig
from dfplan.models.trajectory_value import TrajectoryValue

SHARED = {"observation_dim": 2, "action_dim": 1, "seeds": (0,), "hidden": (16,), "gamma": GAMMA}
LEARNERS = {
    "iql": (iql.IQL, iql.IQLConfig(**SHARED, alpha=0.5, tau=0.5)),
    "td3-bc": (td3_bc.TD3BC, td3_bc.TD3BCConfig(**SHARED, tau=0.7)),
    "awac": (awac.AWAC, awac.AWACConfig(**SHARED, tau=0.5)),
    "cql": (cql.CQL, cql.CQLConfig(**SHARED, tau=0.5, weight=0.0, actions=1, states=1)),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of Minari: author, code link and the like
both_ends = pytest.mark.parametrize("terminated", [True, False], ids=["terminated", "truncated"])


@pytest.fixture(params=["minari", "d4rl"])
def read(request, tmp_path, monkeypatch):
    """Writes the chain in one of the two forms and reads it."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def read(terminated):
        if request.param == "minari":
            return load(write_minari("here/chain-v0", terminated))
        return load(write_d4rl(tmp_path / "chain.hdf5", terminated))

    return read


def descend(parameters, loss, steps, rate):
    optimizer = torch.optim.Adam(parameters, rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


@both_ends
@pytest.mark.parametrize(
    ("read", "name"), [("d4rl", "iql"), *(("minari", name) for name in LEARNERS)], indirect=["read"]
)
def test_an_end_is_worth_its_reward_and_a_cut_what_would_follow(read, name, terminated):
    data = read(terminated)
    learner_class, config = LEARNERS[name]
    learner, rng, generator = learner_class(config), np.random.default_rng(0), torch.Generator().manual_seed(0)
    learner.fit_statistics(data)
    draw = batches_of(learner, data)
    descend(learner.parameters(), lambda: learner(draw(rng, 32), generator)["loss"], 160, 3e-2)
    with torch.no_grad():
        s = learner.observation.normalize(torch.from_numpy(STATES)).unsqueeze(0)
        found = q_values(learner.q, s, torch.zeros(1, 2, 1)).mean(dim=(0, 1)).numpy()
    np.testing.assert_allclose(found, values(terminated), atol=0.08)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_fifth_part_of_a_batch_says_where_the_task_ended(name):
    """No learning: of two critics with the same weights, the one that sees an end asks for the reward alone."""
    learner_class, config = LEARNERS[name]
    torch.manual_seed(0)
    s, a = torch.randn(1, 8, 2), torch.rand(1, 8, 1)
    losses = []
    for ended in (0.0, 1.0):
        learner = learner_class(config)
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.fill_(0.3)
            for stack in (learner.q_target, *([learner.v] if name == "iql" else [])):
                for tensor in (*stack.weights, *stack.biases):
                    tensor.fill_(0.3)
            target = q_values(learner.q, s, a).mean(dim=1)  # the reward that makes the loss 0 if nothing follows
            batch = (s, a, target, s, torch.full((1, 8), ended))
            minimized, _ = learner.losses(Transitions(*batch), Noise(torch.Generator().manual_seed(0), config.seeds))
        losses.append(float(minimized["critic"]))
    assert losses[0] > 0.01 and losses[1] == pytest.approx(0, abs=1e-9)


@both_ends
def test_last_transitions_are_drawn_with_what_followed_them(read, terminated):
    """The reward that stands at an episode's last step alone is not lost."""
    data = read(terminated)
    last = data.episode_ends - 1
    data = dataclasses.replace(data, rewards=np.isin(np.arange(len(data)), last).astype(np.float32))
    s, _, r, s_next, ended = (part[0].numpy() for part in Replay(data, (0,))(np.random.default_rng(0), 4000))
    rewarded = r == 1
    if data.last_observations is None and not terminated:
        assert not r.any()  # nobody knows what followed
        return
    assert rewarded.mean() == pytest.approx(1 / np.diff(data.episode_ends)[0], abs=0.05)
    assert (s[rewarded] == STATES[1]).all() and (ended[rewarded] == terminated).all() and not ended[~rewarded].any()
    if data.last_observations is not None:
        assert (s_next[rewarded] == (END if terminated else STATES[0])).all()


@both_ends
def test_windows_of_a_planner_towards_a_return_go_on_at_rest_after_an_end(read, terminated):
    windows = ReturnWindows(read(terminated), 3)
    s, a, returns, recorded = windows.sample(np.random.default_rng(0), 200)
    first = (s[:, 0] == STATES[1]).all(axis=1)  # windows that begin in s1
    assert set(returns[~first]) == {1.0} and set(returns[first]) == {1.0 if terminated else 2.0}
    assert set(recorded[first]) == {1.0 if terminated else 3.0}
    if terminated:
        rest = windows.data.last_observations
        end = STATES[1] if rest is None else END
        assert (s[first, 1:] == end).all() and (s[~first, 2] == end).all()
        assert not a[first, 1:].any() and not a[~first, 2].any() and a[:, 0].all()


@both_ends
def test_diffusers_value_of_a_window_that_ends_is_its_reward(read, terminated):
    data = read(terminated)
    torch.manual_seed(0)
    model = DiffuserModel(DiffuserConfig(TokenLayout(2, 1, 1), tokens=3, towards="return", network=NETWORK))
    model.fit_statistics(data)
    draw, rng = batches_of(model, data), np.random.default_rng(0)

    def loss():
        batch = tuple(map(torch.from_numpy, draw(rng, 16)))
        return model(batch, torch.Generator().manual_seed(0))["loss"]

    descend(model.J.parameters(), loss, 60, 1e-2)
    s, _, returns, _ = draw(rng, 32)
    with torch.no_grad():
        found = model.returns.denormalize(model.J(model.observation.normalize(torch.from_numpy(s))).unsqueeze(1))
    assert set(returns) == ({1.0} if terminated else {1.0, 2.0})
    np.testing.assert_allclose(found.squeeze(1), returns, atol=0.15)


@both_ends
def test_a_veterans_values_are_the_steps_to_the_reward_under_both_ends(read, terminated):
    paths = GoalPaths(read(terminated), tokens=3, stride=1, discount=1.0)
    plans, returns, *_ = paths.sample(np.random.default_rng(0), 64)
    at_goal = (plans[:, 0] == STATES[1]).all(axis=1)
    assert set(returns[at_goal]) == {1.0} and set(returns[~at_goal]) == {0.0}  # 1 and 0 steps of the 2 at most
    torch.manual_seed(0)
    critic = TrajectoryValue(2, TransformerConfig(width=16, depth=1, heads=2, octaves=0))
    inputs, targets = torch.from_numpy(plans), torch.from_numpy(returns)
    descend(critic.parameters(), lambda: critic.loss(inputs, targets), 80, 1e-2)
    with torch.no_grad():
        np.testing.assert_allclose(critic(inputs), returns, atol=0.15)


def test_no_way_to_a_reward_leads_over_an_end():
    """A fall at step 1 of what is recorded as one episode: the reward at step 3 is not to be had from before it."""
    observations = np.arange(8, dtype=np.float32).reshape(4, 2)
    rewards, fall = np.array([0, 0, 0, 1], np.float32), np.array([False, True, False, False])
    data = Trajectories(observations, np.zeros((4, 1), np.float32), rewards, np.array([0]), "a fall", terminations=fall)
    assert GoalPaths(data, tokens=4, stride=1, discount=1.0).starts.tolist() == [2, 3]
