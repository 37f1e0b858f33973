"""A world for full-sequence planners that anybody can solve: straight drives at constant velocity in the plane."""

import numpy as np
import torch

from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.models.unet import UNetConfig

NETWORK = UNetConfig(width=32, multiples=(1,), octaves=0)
STRIDE, TOKENS = 2, 8


def drives(episodes=200, steps=16, seed=0):
    """Observations (x, y, vx, vy) and actions (vx, vy); the reward of a step is x."""
    rng = np.random.default_rng(seed)
    velocity = np.repeat(rng.normal(size=(episodes, 1, 2)) / steps, steps, axis=1)
    start = 0.5 * rng.normal(size=(episodes, 1, 2))
    position = start + velocity * np.arange(steps)[:, None]
    observations = np.concatenate([position, velocity], axis=-1).reshape(-1, 4).astype(np.float32)
    return Trajectories(
        observations=observations,
        actions=velocity.reshape(-1, 2).astype(np.float32),
        rewards=observations[:, 0].copy(),
        episode_starts=np.arange(0, episodes * steps, steps, dtype=np.int64),
        name="drives",
    )


def layout(actions):
    return TokenLayout(4, 2, STRIDE, observations="all" if actions else "last", actions=actions)


def trained(agent, data, steps, learning_rate=4e-3):
    """The agent after some steps of its own `update`."""
    agent.learner.fit_statistics(data)
    source, rng = agent.learner.batches(data), np.random.default_rng(0)
    agent._optimizer = torch.optim.AdamW(agent.learner.parameters(), lr=learning_rate)
    losses = [agent.update(source(rng, 32))["loss"] for _ in range(steps)]
    return agent, losses
