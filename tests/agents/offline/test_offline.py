"""The five offline learners: their losses in closed form, seeds that do not touch one another, and the agent's face."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from dfplan.agents.offline import awac, bc, cql, iql, td3_bc
from dfplan.agents.offline.base import ActingConfig, OfflineConfig
from dfplan.agents.offline.losses import critic_loss, gaussian_log_prob, q_values, weighted_imitation
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Noise, Replay
from dfplan.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dfplan.training.config import TrainConfig
from dfplan.training.loop import train

AGENTS = {
    "bc": (bc.BehaviorCloningAgent, bc.BCConfig(4, 2, hidden=(16, 16))),
    "td3-bc": (td3_bc.TD3BCAgent, td3_bc.TD3BCConfig(4, 2, hidden=(16, 16))),
    "iql": (iql.IQLAgent, iql.IQLConfig(4, 2, hidden=(16, 16))),
    "awac": (awac.AWACAgent, awac.AWACConfig(4, 2, hidden=(16, 16))),
    "cql": (cql.CQLAgent, cql.CQLConfig(4, 2, hidden=(16, 16), actions=3, states=4)),
}
CONFIG = TrainConfig(
    steps=6, batch_size=8, learning_rate=1e-2, warmup_steps=0, weight_decay=0.0, gradient_clip=1e9, ema_decay=0.0,
    precision="32-true",
)  # fmt: skip
every_agent = pytest.mark.parametrize("name", AGENTS)


def recorded(steps=60, limits=(-1.0, 1.0)):
    rng = np.random.default_rng(0)
    return Trajectories(
        rng.normal(size=(steps, 4)).astype(np.float32),
        rng.uniform(*limits, size=(steps, 2)).astype(np.float32),
        (rng.random(steps) < 0.5).astype(np.float32),
        np.array([0, steps // 2]),
        "noise",
    )


def learner(name, **changes):
    agent, config = AGENTS[name]
    made = agent.learner_class(dataclasses.replace(config, **changes))
    made.fit_statistics(recorded())
    return made


def trained(name, folder, **changes):
    made = learner(name, **changes)
    train(made, Replay(recorded(), made.config.seeds), CONFIG, folder, accelerator="cpu", quiet=True)
    return made


# The losses


def test_the_expectile_loss_is_lopsided_and_its_minimum_is_the_expectile():
    u = torch.tensor([[-2.0, 1.0]])
    assert iql.expectile_loss(u, 0.7).item() == pytest.approx((0.3 * 4 + 0.7 * 1) / 2)
    assert iql.expectile_loss(u, 0.5).item() == pytest.approx(0.5 * u.square().mean().item())
    # Of a coin with values 0 and 1 the tau-expectile is tau.
    m = torch.linspace(0, 1, 101).unsqueeze(1)
    coin = torch.tensor([[0.0, 1.0]]) - m
    assert m[iql.expectile_loss(coin, 0.7).argmin()].item() == pytest.approx(0.7)


def test_imitation_is_weighted_by_an_exponential_up_to_the_largest_weight():
    log_pi, log_weight = torch.tensor([[-1.0, -2.0]]), torch.tensor([[1.5, 27.0]])
    expected = (math.exp(1.5) * 1 + 100 * 2) / 2
    assert weighted_imitation(log_pi, log_weight, 100.0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name, temperature", [("iql", {"beta": 4.0}), ("awac", {"lam": 0.25})])
def test_beta_is_one_over_lambda(name, temperature, monkeypatch):
    """Each weighs the advantage by its own temperature: the logarithm of the weight is 4 A in both."""
    module, given = {"iql": iql, "awac": awac}[name], []

    def recording(log_pi, log_weight, max_weight):
        given.append(log_weight)
        return weighted_imitation(log_pi, log_weight, max_weight)

    monkeypatch.setattr(module, "weighted_imitation", recording)
    made = learner(name, max_weight=7.0, **temperature)
    batch = Replay(recorded(), made.config.seeds)(np.random.default_rng(0), 8)
    _, watched = made.losses(batch, Noise(torch.Generator().manual_seed(0), made.config.seeds))
    assert torch.allclose(given[0].mean(dim=1), 4 * watched["advantage"], atol=1e-5)


def test_td3_bc_weighs_value_against_imitation_whatever_the_scale_of_the_value():
    pi, a = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    for scale in (1.0, 50.0):
        q = scale * torch.tensor([[1.0, 3.0]])
        assert td3_bc.actor_loss(q, pi, a, alpha=2.5).item() == pytest.approx(1 - 2.5)


def test_critic_losses_add_up_over_the_twins():
    q, y = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), torch.tensor([[0.0, 2.0]])
    assert critic_loss(q, y).item() == pytest.approx(0.5 + 2.0)


def test_the_conservative_term_is_the_log_of_an_integral():
    """Of exp(Q) over a in [-1, 1], from an even grid whose density is 1/2: log of the sum, not divided by N."""
    a = torch.linspace(-1, 1, 20_001)
    q_sampled = (2 * a).expand(1, 2, 1, -1).transpose(2, 3)
    log_density = torch.full((1, len(a), 1), math.log(0.5))
    term = cql.conservative_term(q_sampled, log_density, torch.full((1, 2, 1), 0.25))
    integral = (math.exp(2) - math.exp(-2)) / 2
    assert term.shape == (1, 2)
    assert term[0, 0].item() == pytest.approx(math.log(len(a) * integral) - 0.25, abs=1e-3)


def test_log_probabilities_are_those_of_torchs_distributions():
    g = torch.Generator().manual_seed(0)
    mean, epsilon = torch.randn(2, 2, 3, 2, generator=g).unbind(0)
    log_std = torch.tensor([[[-0.5, 0.3]]])
    normal = torch.distributions.Normal(mean, log_std.exp())
    assert torch.allclose(gaussian_log_prob(epsilon, mean, log_std), normal.log_prob(epsilon).sum(-1), atol=1e-5)
    a, log_pi = cql.squashed(mean, log_std, epsilon)
    squashed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    assert torch.allclose(log_pi, squashed.log_prob(a).sum(-1), atol=1e-3)


def gradients(made, loss):
    """Names of the networks that a loss moves."""
    made.zero_grad()
    loss.sum().backward(retain_graph=True)
    return {name.split(".")[0] for name, p in made.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize(
    "name, moved",
    [
        ("td3-bc", {"critic": {"q"}, "actor": {"pi"}}),
        ("iql", {"value": {"v"}, "critic": {"q"}, "policy": {"pi", "log_std"}}),
        ("awac", {"critic": {"q"}, "policy": {"pi", "log_std"}}),
        ("cql", {"critic": {"q"}, "conservative": {"q"}, "multiplier": {"log_alpha"}, "policy": {"pi"},
                 "temperature": {"log_temperature"}}),
    ],
)  # fmt: skip
def test_each_loss_moves_its_own_network_only(name, moved):
    made = learner(name)
    batch = Replay(recorded(), made.config.seeds)(np.random.default_rng(0), 8)
    for _ in range(2):  # TD3+BC's actor learns at the second step
        minimized, _ = made.losses(batch, Noise(torch.Generator().manual_seed(0), made.config.seeds))
    assert minimized.keys() == moved.keys()
    assert {loss: gradients(made, value) for loss, value in minimized.items()} == moved


def test_td3_bc_moves_actor_and_targets_at_every_second_step(tmp_path):
    made = learner("td3-bc")
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    seen = []
    for _ in range(4):
        before = made.pi.weights[0].detach().clone(), made.q_target.weights[0].clone()
        batch = Replay(recorded(), made.config.seeds)(np.random.default_rng(0), 8)
        made(tuple(batch), torch.Generator().manual_seed(0))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(
            (not torch.equal(before[0], made.pi.weights[0]), not torch.equal(before[1], made.q_target.weights[0]))
        )
    # The targets follow at the start of the step after.
    assert seen == [(False, False), (True, False), (False, True), (True, False)]


# Transitions and seeds


def test_transitions_are_steps_with_their_successors_of_the_same_episode():
    data = recorded(steps=6)
    s, a, r, s_next, terminated = Replay(data, (0, 1))(np.random.default_rng(0), 200)
    assert s.shape == (2, 200, 4) and a.shape == (2, 200, 2) and r.shape == (2, 200)
    place = {tuple(row): i for i, row in enumerate(data.observations)}
    steps = [place[tuple(row.numpy())] for row in s[0]]
    assert set(steps) == {0, 1, 3, 4}  # 2 and 5 end their episodes
    assert [place[tuple(row.numpy())] for row in s_next[0]] == [i + 1 for i in steps]
    assert np.array_equal(a[0], data.actions[steps]) and np.array_equal(r[0], data.rewards[steps])
    assert not torch.equal(s[0], s[1]) and not terminated.any()


def test_episodes_of_single_steps_hold_no_transition():
    data = recorded(steps=2)
    with pytest.raises(ValueError, match="noise: no step is followed"):
        Replay(data, (0,))


@every_agent
def test_a_member_learns_what_it_learns_alone(name, tmp_path):
    together = trained(name, tmp_path / "together", seeds=(4, 9, 2))
    alone = trained(name, tmp_path / "alone", seeds=(9,))
    start = learner(name, seeds=(9,))
    for (parameter, stacked), (_, single), (_, before) in zip(
        together.named_parameters(), alone.named_parameters(), start.named_parameters(), strict=True
    ):
        members = len(stacked) // 3
        assert torch.allclose(stacked[members : 2 * members], single, atol=1e-4), parameter
        assert not torch.allclose(before, single, atol=1e-3), parameter
    assert not torch.allclose(together.pi.weights[0][0], together.pi.weights[0][1], atol=1e-2)


@every_agent
def test_a_run_that_was_interrupted_ends_the_same(name, tmp_path):
    class PowerFailureError(Exception):
        pass

    whole = trained(name, tmp_path / "whole")
    config = dataclasses.replace(CONFIG, checkpoint_every=3)
    made, calls = learner(name), iter(range(5))
    replay = Replay(recorded(), made.config.seeds)

    def failing(rng, size):
        if next(calls) == 4:
            raise PowerFailureError
        return replay(rng, size)

    with pytest.raises(PowerFailureError):
        train(made, failing, config, tmp_path / "halves", accelerator="cpu", quiet=True)
    again = learner(name)
    train(again, replay, config, tmp_path / "halves", accelerator="cpu", quiet=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_critics_of_a_seed_are_neighbors_in_the_stack():
    made = learner("iql")
    s, a = torch.randn(3, 5, 4), torch.randn(3, 5, 2)
    q = q_values(made.q, s, a)
    assert q.shape == (3, 2, 5)
    pair = torch.cat([s, a], dim=-1)
    assert torch.allclose(q[1, 0], made.q.alone(2, pair[1]).squeeze(-1), atol=1e-6)
    assert torch.allclose(q[2, 1], made.q.alone(5, pair[2]).squeeze(-1), atol=1e-6)


def bandit(steps=2000):
    """No observation matters; the reward falls with the distance of the action from (0.6, -0.6)."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, size=(steps, 2)).astype(np.float32)
    rewards = 1 - np.square(actions - np.array([0.6, -0.6])).sum(axis=1).astype(np.float32)
    return Trajectories(rng.normal(size=(steps, 4)).astype(np.float32), actions, rewards, np.array([0]), "bandit")


@pytest.mark.parametrize(
    "name, rate, hyperparameters",
    [
        ("td3-bc", 4e-3, {}),
        ("iql", 1e-2, {"alpha": 0.1, "beta": 20.0}),
        ("awac", 1e-2, {}),
        ("cql", 1e-2, {"weight": 0.1, "policy_rate": 1.0}),
    ],
)
def test_rewarded_actions_are_found(name, rate, hyperparameters, tmp_path):
    agent_class, config = AGENTS[name]
    made = agent_class.learner_class(
        dataclasses.replace(config, seeds=(0,), hidden=(32, 32), gamma=0.0, **hyperparameters)
    )
    data = bandit()
    made.fit_statistics(data)
    training = dataclasses.replace(CONFIG, steps=150, batch_size=128, learning_rate=rate)
    train(made, Replay(data, made.config.seeds), training, tmp_path, accelerator="cpu", quiet=True)
    actions = agent_class(made).act(data.observations[:100])
    assert np.abs(actions.mean(axis=0) - [0.6, -0.6]).max() < 0.35  # cloning: 0.6


# The agent's face


@every_agent
def test_acting_stays_within_the_limits_of_recorded_actions(name):
    agent_class, config = AGENTS[name]
    made = agent_class.learner_class(config)
    made.fit_statistics(recorded(limits=(2.0, 5.0)))
    with torch.no_grad():
        made.pi.biases[-1].mul_(30)
    agent = agent_class(made, ActingConfig(member=2))
    agent.reset(goal=(1.0, 1.0), seed=3)
    many = agent.act(np.random.default_rng(0).normal(size=(50, 4)))
    assert many.dtype == np.float32 and many.shape == (50, 2)
    assert (many >= made.action_low.numpy() - 1e-5).all() and (many <= made.action_high.numpy() + 1e-5).all()
    one = agent.act(np.zeros(4))
    assert one.shape == (2,) and np.array_equal(one, agent.act(np.zeros((3, 4)))[1])


@every_agent
def test_a_saved_agent_acts_as_its_rounded_weights_say(name, tmp_path):
    agent_class, _ = AGENTS[name]
    agent = agent_class(learner(name), ActingConfig(member=1), {"seed": 0})
    observations = np.random.default_rng(0).normal(size=(20, 4))
    agent.save(tmp_path / "small.safetensors")
    agent.save(tmp_path / "whole.safetensors", critics=True)
    small, whole = (agent_class.load(tmp_path / f"{which}.safetensors") for which in ("small", "whole"))
    assert small.card == {"seed": 0} and small.config.member == 1 and small.parameters == agent.parameters
    assert np.array_equal(whole.act(observations), agent.act(observations))
    assert np.allclose(small.act(observations), agent.act(observations), atol=2e-3)
    other = agent_class.load(tmp_path / "whole.safetensors", member=2)
    assert not np.allclose(other.act(observations), agent.act(observations), atol=1e-2)
    small.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "small.safetensors").read_bytes()


@every_agent
def test_update_takes_one_batch_for_all_or_one_for_each(name):
    agent_class, _ = AGENTS[name]
    agent = agent_class(learner(name))
    batch = Replay(recorded(), agent.learner.config.seeds)(np.random.default_rng(0), 8)
    before = agent.learner.pi.weights[0].detach().clone()
    losses = [agent.update(parts) for parts in (batch, tuple(part[0].numpy() for part in batch), batch[:4])]
    assert losses[0].keys() == losses[1].keys() >= {"loss"} and all(math.isfinite(v) for v in losses[1].values())
    assert not torch.equal(before, agent.learner.pi.weights[0])


@pytest.mark.parametrize("name", ["iql", "awac"])
def test_files_with_the_older_name_of_the_largest_weight_are_read(name, tmp_path):
    path = tmp_path / "weights.safetensors"
    AGENTS[name][0](learner(name, max_weight=7.0)).save(path)
    tensors, header = load_checkpoint(path)
    header["config"]["longest_weight"] = header["config"].pop("max_weight")
    save_checkpoint(path, tensors, header)
    assert AGENTS[name][0].load(path).learner.config.max_weight == 7.0


def test_a_foreign_or_broken_file_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    iql.IQLAgent(learner("iql")).save(path)
    with pytest.raises(CheckpointError, match="holds 'iql', not the weights of 'awac'"):
        awac.AWACAgent.load(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        iql.IQLAgent.load(path)
    config = {"observation_dim": 4, "action_dim": 2, "color": 1}
    save_checkpoint(path, {}, {"kind": "iql", "critics": False, "config": config, "agent": {}, "card": {}})
    with pytest.raises(CheckpointError, match=r"cannot build: config\.color is unknown here"):
        iql.IQLAgent.load(path)


def test_bad_input_is_named(tmp_path):
    agent = bc.BehaviorCloningAgent(learner("bc"))
    with pytest.raises(ValueError, match=r"the observation must be \(4,\) or \(batch, 4\), .* got shape \(3,\)"):
        agent.act(np.zeros(3))
    with pytest.raises(ValueError, match=r"the observation must be .* got NaN or infinity"):
        agent.act(np.full(4, np.nan))
    drawn = Replay(recorded(), agent.learner.config.seeds)(np.random.default_rng(0), 8)
    s, a, r, s_next, terminated = (part[0].numpy() for part in drawn)
    with pytest.raises(
        ValueError, match=r"the batch's terminated must be \(8,\), finite real numbers, got shape \(7,\)"
    ):
        agent.update((s, a, r, s_next, terminated[1:]))
    with pytest.raises(ValueError, match="the batch's terminated must be 0 or 1"):
        agent.update((s, a, r, s_next, terminated + 0.5))
    with pytest.raises(ValueError, match=r"a batch must be \(s, a, r, s'\)"):
        agent.update((np.zeros((8, 4)), np.zeros((8, 2))))
    with pytest.raises(ValueError, match=r"member must lie in 0\.\.2, got 3"):
        bc.BehaviorCloningAgent(learner("bc"), ActingConfig(member=3))
    with pytest.raises(ValueError, match="seeds must be"):
        OfflineConfig(4, 2, seeds=(1, 1))
    still = dataclasses.replace(recorded(), actions=np.ones((60, 2), np.float32))
    with pytest.raises(ValueError, match="noise: column 0 of the actions never changes"):
        agent.learner.fit_statistics(still)
    with pytest.raises(ValueError, match="actions must be greater than or equal to 1"):
        cql.CQLConfig(4, 2, actions=0)
