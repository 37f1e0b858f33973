import numpy as np
import pytest
import torch

from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import changes
from dfplan.planning.dynamics import DynamicsConfig, DynamicsModel


def recorded(N=4000, seed=0):
    """A damped mass on a line, (x, v), pushed at random and put back now and then: v' = 0.9 v + 0.1 a, x' = x + v'."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (N, 1)).astype(np.float32)
    observations, starts = np.zeros((N, 2), dtype=np.float32), np.arange(0, N, 50)
    for n in range(N - 1):
        x, v = observations[n]
        w = 0.9 * v + 0.1 * actions[n, 0]
        observations[n + 1] = (x + w, w) if (n + 1) % 50 else (rng.normal(), 3.0)
    return Trajectories(observations, actions, np.zeros(N, dtype=np.float32), starts.astype(np.int64), "mass")


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    data, model = recorded(), DynamicsModel(DynamicsConfig(2, 1, width=32, octaves=1))
    model.fit_statistics(data)
    batch, rng, optimizer = changes(data), np.random.default_rng(0), torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        model(tuple(map(torch.from_numpy, batch(rng, 256))), torch.Generator())["loss"].backward()
        optimizer.step()
    return model.eval(), data


def test_it_learns_what_the_data_do(trained):
    model, _ = trained
    fresh = recorded(seed=1)
    observations, actions = changes(fresh)(np.random.default_rng(0), 500)
    found = model.rollout(observations[:, 0], actions[:, :1])[:, 0]
    moved = np.abs(observations[:, 1] - observations[:, 0]).mean(axis=0)
    assert (np.abs(found - observations[:, 1]).mean(axis=0) < 0.05 * moved).all()


def test_a_rollout_is_step_after_step(trained):
    model, data = trained
    states, actions = data.observations[:5], data.actions[:40].reshape(5, 8, 1)
    path, state = model.rollout(states, actions), states
    for s in range(8):
        state = model.rollout(state, actions[:, s : s + 1])[:, 0]
        np.testing.assert_allclose(state, path[:, s], rtol=1e-5, atol=1e-6)


def test_statistics_leave_out_the_steps_between_episodes(trained):
    model, _ = trained
    assert model.change.std[1] < 0.5, "a jump of 3 every 50 steps would make it larger"
    low, high = model.action_low.item(), model.action_high.item()
    beyond = model.rollout(np.zeros((1, 2)), np.full((1, 1, 1), 50.0))
    assert np.array_equal(beyond, model.rollout(np.zeros((1, 2)), np.full((1, 1, 1), high))) and low < 0 < high


def test_gradients_are_the_losses():
    torch.manual_seed(0)
    model = DynamicsModel(DynamicsConfig(2, 1, width=4, octaves=0)).double()
    batch = torch.randn(6, 2, 2, dtype=torch.float64), torch.randn(6, 2, 1, dtype=torch.float64)
    weight = model.network.linear.weight
    model(batch, torch.Generator())["loss"].backward()
    analytic, numeric = weight.grad.clone(), torch.zeros_like(weight)
    for i in range(weight.numel()):
        sides = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                weight.view(-1)[i] += step
                sides.append(model(batch, torch.Generator())["loss"].item())
                weight.view(-1)[i] -= step
        numeric.view(-1)[i] = (sides[0] - sides[1]) / 2e-4
    torch.testing.assert_close(analytic, numeric, rtol=1e-2, atol=1e-3)


def test_bad_input(trained):
    with pytest.raises(ValueError, match=r"states \(N, 2\) and actions \(N, S, 1\)"):
        trained[0].rollout(np.zeros((3, 2)), np.zeros((2, 4, 1)))
    with pytest.raises(ValueError, match="width must be greater than or equal to 1"):
        DynamicsConfig(4, 2, width=0)
