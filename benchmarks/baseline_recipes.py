"""The recipes of the baselines that are trained on recorded data, for each maze.

The published ones' own settings, their budgets and where these differ from ours stand in docs/<algorithm>.md.
"""

from __future__ import annotations

from functools import partial

from dfplan.agents.diffusion_veteran import DiffusionVeteranAgent, Veteran, VeteranConfig, VeteranModelConfig
from dfplan.agents.mppi import LearnedMPPIAgent, MPPIConfig
from dfplan.benchmarks.model_based import with_field
from dfplan.benchmarks.recipe import Recipe
from dfplan.dynamics_model import DynamicsModel
from dfplan.train_config import TrainConfig

_VETERAN = {"large": (32, 3_500), "medium": (24, 2_000), "umaze": (20, 1_500)}


def of_maze(maze: str) -> dict[str, Recipe]:
    """The baselines' recipes for one maze, by name."""
    return {"dv": _veteran(maze), "dynamics": _dynamics(maze)}


def _veteran(maze: str) -> Recipe:
    tokens, steps = _VETERAN[maze]
    learner = partial(Veteran, VeteranModelConfig(tokens=tokens))
    return Recipe(f"maze2d-{maze}-dv", DiffusionVeteranAgent, VeteranConfig(), learner, TrainConfig(steps=steps))


def _dynamics(maze: str) -> Recipe:
    train = TrainConfig(steps=4_000, batch_size=512, learning_rate=2e-3, precision="32-true")
    return Recipe(
        f"maze2d-{maze}-dynamics", LearnedMPPIAgent, MPPIConfig(), DynamicsModel, train, prepare=with_field
    )
