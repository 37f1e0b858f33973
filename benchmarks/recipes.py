"""The named recipes: for each maze, the difference from the defaults in model and training.

'default' is the best one found with the paper's parts: coarse state tokens, a bidirectional network, the goal as a
known clean token, zig-zag schedule, learned inverse dynamics. 'paper' follows Chen et al. 2024: causal, bundles of 10
steps of observation and action, zig-zag schedule, Monte Carlo guidance by the distance to the goal, diffused actions.
How each of them plans and acts is written into the header of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dfplan.agents.agent_config import AgentConfig
from dfplan.models import TransformerConfig
from dfplan.planner import PlanConfig
from dfplan.tokens import TokenLayout
from dfplan.train_config import TrainConfig
from dfplan.trajectory_model import TrajectoryModelConfig

RecipeName = Literal["default", "paper"]

@dataclass(frozen=True)
class Recipe:
    """What to train for one maze under one name."""

    weights: str
    """Name of the trained weights, as `DiffusionForcingAgent.from_pretrained` takes it."""
    model: TrajectoryModelConfig
    train: TrainConfig
    agent: AgentConfig


DEFAULT = AgentConfig()
UMAZE = AgentConfig(speed=1.6)  # its ways are short and straight
PAPER = AgentConfig(
    PlanConfig(goal="guided", horizons=1, steps=8, uncertainty=1.0, guide="throughout", scale=0.25, futures=2),
    execution="diffused_actions",
    replan_every=40,
)


def _coarse(stride: int, tokens: int) -> TrajectoryModelConfig:
    layout = TokenLayout(observation_dim=4, action_dim=2, stride=stride)
    return TrajectoryModelConfig(layout, tokens=tokens, weighting="uniform")


def _bundled(tokens: int) -> TrajectoryModelConfig:
    return TrajectoryModelConfig(
        TokenLayout(observation_dim=4, action_dim=2, stride=10, observations="all", actions=True),
        tokens=tokens,
        model=TransformerConfig(causal=True),
        weighting="fused_snr",
        draws={"independent": 1.0},
    )


# Nearly every way that the expert drove between two cells fits into a plan: 95% took less than 460, 280 and 160 steps.
RECIPES: dict[tuple[str, RecipeName], Recipe] = {
    ("large", "default"): Recipe("maze2d-large", _coarse(12, 40), TrainConfig(steps=18_000), DEFAULT),
    ("medium", "default"): Recipe("maze2d-medium", _coarse(10, 32), TrainConfig(steps=14_000), DEFAULT),
    ("umaze", "default"): Recipe("maze2d-umaze", _coarse(8, 24), TrainConfig(steps=10_000), UMAZE),
    ("large", "paper"): Recipe("maze2d-large-paper", _bundled(41), TrainConfig(steps=10_000), PAPER),
    ("medium", "paper"): Recipe("maze2d-medium-paper", _bundled(31), TrainConfig(steps=8_000), PAPER),
    ("umaze", "paper"): Recipe("maze2d-umaze-paper", _bundled(20), TrainConfig(steps=6_000), PAPER),
}


def recipe(maze: str, name: RecipeName = "default") -> Recipe:
    """The recipe of a maze ('umaze', 'medium', 'large'). Raises ValueError for a maze that has none."""
    if (maze, name) not in RECIPES:
        known = ", ".join(sorted({m for m, _ in RECIPES}))
        raise ValueError(f"there is no recipe {name!r} for the maze {maze!r}: expected 'default' or 'paper' for {known}")
    return RECIPES[maze, name]
