"""A world for full-sequence planners that anybody can solve: straight drives at constant velocity in the plane."""

import numpy as np
import pytest
import torch

from dfplan.agents.diffusion_policy import DiffusionPolicyModel, windows
from dfplan.agents.diffusion_veteran import Veteran
from dfplan.agents.distillation import Distilled
from dfplan.agents.graph_search import GraphModel
from dfplan.agents.offline.gciql import GCIQL
from dfplan.agents.recurrent_policy import RecurrentPolicyModel, episodes
from dfplan.data.sparse_paths import GoalPaths
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Relabeled, Replay, changes
from dfplan.data.windows import ReturnWindows, Windows
from dfplan.models.unet import UNetConfig
from dfplan.planning.dynamics import DynamicsModel
from dfplan.planning.full_sequence import SequenceModel
from dfplan.planning.model import TrajectoryModel

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


def batches_of(learner, data):
    """What the recipe of a learner of this kind draws batches from."""
    config = learner.config
    if isinstance(learner, TrajectoryModel):
        return Windows(data, config.layout.steps(config.tokens)).sample
    if isinstance(learner, SequenceModel):
        return ReturnWindows(data, config.steps + 1).sample
    if isinstance(learner, Veteran):
        return GoalPaths(data, config.tokens, config.stride, config.discount).sample
    if isinstance(learner, DiffusionPolicyModel):
        return windows(data, config)
    if isinstance(learner, RecurrentPolicyModel):
        return episodes(data)
    if isinstance(learner, Distilled):
        source = Relabeled(data, config.seeds, config.goal_columns, 0.9)
        return lambda rng, batch_size: source(rng, batch_size)[:6]
    if isinstance(learner, GCIQL):
        return Relabeled(data, config.seeds, config.goal_columns, config.gamma)
    if isinstance(learner, GraphModel):
        return Windows(data, config.longest_gap + 1).sample
    return changes(data) if isinstance(learner, DynamicsModel) else Replay(data, config.seeds)


def fixture(build, **changes):
    """A fixture of a module: the agent that `build` makes, trained for a while, and its losses."""
    return pytest.fixture(scope="module")(lambda: trained(build(**changes), drives(), 120))


def trained(agent, data, steps, learning_rate=4e-3):
    """The agent after some steps of its own `update`."""
    agent.learner.fit_statistics(data)
    source, rng = batches_of(agent.learner, data), np.random.default_rng(0)
    agent._optimizer = torch.optim.AdamW(agent.learner.parameters(), lr=learning_rate)
    losses = [agent.update(source(rng, 32))["loss"] for _ in range(steps)]
    return agent, losses
