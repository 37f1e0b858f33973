import dataclasses
import json

import numpy as np
import pytest
import torch
from tiny import tiny

from dfplan.config_json import config_from_json, config_to_json
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import Windows
from dfplan.models import RecurrentConfig
from dfplan.planning.model import Batch, TrajectoryModel, TrajectoryModelConfig

CONFIGS = {
    "transformer": tiny(2, 1, stride=3, width=32, levels=16),
    "recurrent": TrajectoryModelConfig(
        TokenLayout(2, 1, stride=3, observations="all", actions=True),
        tokens=5,
        levels=16,
        model=RecurrentConfig(width=32, depth=1),
        prediction="eps",
        weighting="fused_snr",
        draws={"shared": 1.0, "next_token": 3.0},
    ),
}


def circles(steps=2000):
    """A point that turns on a circle far from the origin; the action is its velocity's first column."""
    angle = 0.1 * np.arange(steps)
    observations = np.stack([30 + 5 * np.cos(angle), 0.2 * np.sin(angle)], axis=1).astype(np.float32)
    actions = -np.sin(angle)[:, None].astype(np.float32)
    return Trajectories(observations, actions, np.zeros(steps, np.float32), np.array([0, 700]), "circles")


def batch(config, data, size=32, seed=0):
    windows = Windows(data, config.layout.steps(config.tokens))
    return Batch(*map(torch.from_numpy, windows.sample(np.random.default_rng(seed), size)))


def fresh(name):
    torch.manual_seed(0)
    model = TrajectoryModel(CONFIGS[name])
    model.fit_statistics(circles())
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_the_header_is_json_and_gives_the_config_back(name):
    header = json.loads(json.dumps(config_to_json(CONFIGS[name])))
    assert config_from_json(TrajectoryModelConfig, header) == CONFIGS[name]
    assert header["model"]["kind"] == name


@pytest.mark.parametrize("name", CONFIGS)
def test_every_loss_falls_on_a_toy_task(name):
    model, data = fresh(name), circles()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def losses(seed):
        return model(batch(CONFIGS[name], data, 64, seed), torch.Generator().manual_seed(seed))

    with torch.no_grad():
        before = losses(1000)
    for step in range(40):
        optimizer.zero_grad()
        losses(step)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        after = losses(1000)
    assert set(before) > {"loss", "diffusion", "inverse"}
    parts = sum(value for key, value in after.items() if key != "loss")
    torch.testing.assert_close(after["loss"], parts, msg="'loss' is the sum of its named parts")
    for key in before:
        assert after[key] < 0.9 * before[key], f"{key} went from {before[key]:.3f} to {after[key]:.3f}"


def test_what_judges_and_tracks_steps_learns_from_none_that_is_padded():
    small = dataclasses.replace(CONFIGS["transformer"], parts=True, history=2, outcomes=2)
    model, (observations, actions) = TrajectoryModel(small).eval(), batch(small, circles(), 8)[:2]
    valid = torch.tensor([[False, False, True, True, False]]).expand(8, -1)
    rows = torch.arange(observations.shape[1])
    padded = (rows < small.layout.stride) | (rows > 3 * small.layout.stride)
    found = []
    for away in (0.0, 1000.0):
        one = Batch(observations + away * padded[:, None], actions + away * padded[:, None], valid, torch.zeros(8, 0))
        found.append(model(one, torch.Generator().manual_seed(0)))
    for name in ("inverse", "plausibility", "outcomes"):
        assert torch.equal(found[0][name], found[1][name]), name


def test_losses_are_a_function_of_batch_and_generator():
    model, one = fresh("transformer"), batch(CONFIGS["transformer"], circles())
    first, again, other = (model(one, torch.Generator().manual_seed(seed))["loss"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_recorded_units_do_not_matter():
    """The same motion in other units gives the same losses: everything is learned in deviations from the mean."""
    data, one = circles(), CONFIGS["transformer"]
    scaled = Trajectories(data.observations * 100 - 7, data.actions * 0.01, data.rewards, data.episode_starts, "scaled")
    found = []
    for d in (data, scaled):
        torch.manual_seed(0)
        model = TrajectoryModel(one)
        model.fit_statistics(d)
        found.append(model(batch(one, d), torch.Generator().manual_seed(0))["loss"])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_action_limits_are_the_datas_own():
    model, data = fresh("transformer"), circles()
    assert model.action_low.tolist() == data.actions.min(0).tolist()
    assert model.action_high.tolist() == data.actions.max(0).tolist()
