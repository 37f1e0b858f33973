"""The named recipes: for each maze, what to train, how, and the agent that acts with it.

'default' is the best one found with the paper's parts: coarse state tokens, a bidirectional network, the goal as a
known clean token, zig-zag schedule, learned inverse dynamics. 'paper' follows Chen et al. 2024: causal, bundles of 10
steps of observation and action, zig-zag schedule, guidance by the distance to the goal, diffused actions; its futures take
one step each, so that they are the network's mean and no samples.
'short', 'full-sequence' and 'next-token' are the paper's ablation: the default's network, loss and agent with less
training, of which only the draw of noise levels differs (and the scheduling matrix that fits it).
How each of them plans and acts is written into the header of its weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.benchmarks import baseline_recipes, online
from dfplan.benchmarks.recipe import Recipe
from dfplan.data.tokens import TokenLayout
from dfplan.envs.registry import unknown
from dfplan.models import TransformerConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.planner import PlanConfig
from dfplan.training.config import TrainConfig

DEFAULT = AgentConfig()
UMAZE = AgentConfig(speed=1.6)  # its ways are short and straight
PAPER = AgentConfig(
    PlanConfig(goal="guided", horizons=1, steps=8, uncertainty=1.0, guide="throughout", scale=0.25, futures=2),
    execution="diffused_actions",
    replan_every=40,
)
# Each draw is sampled as it was trained: all tokens together, or one after another.
FULL_SEQUENCE = {"uncertainty": 0.0}
NEXT_TOKEN = {"uncertainty": 2.0, "steps": 2}


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


def _forcing(weights: str, model: TrajectoryModelConfig, steps: int, config: AgentConfig) -> Recipe:
    return Recipe(weights, DiffusionForcingAgent, config, partial(TrajectoryModel, model), TrainConfig(steps=steps))


def _ablation(maze: str, name: str, steps: int, draw: str | None, plan: dict[str, Any]) -> Recipe:
    """The default recipe of a maze with other steps, draw and matrix."""
    model, config = MODELS[maze], AGENTS[maze]
    if draw is not None:
        model = replace(model, draws={draw: 1.0})
    return _forcing(f"maze2d-{maze}-{name}", model, steps, replace(config, plan=replace(config.plan, **plan)))


# Nearly every way that the expert drove between two cells fits into a plan: 95% took less than 460, 280 and 160 steps.
MODELS = {"large": _coarse(12, 40), "medium": _coarse(10, 32), "umaze": _coarse(8, 24)}
AGENTS = {"large": DEFAULT, "medium": DEFAULT, "umaze": UMAZE}
_STEPS = {"large": 18_000, "medium": 14_000, "umaze": 10_000}
_ABLATION_STEPS = {"large": 5_000, "medium": 4_000, "umaze": 3_000}
_PAPER = {"large": (41, 10_000), "medium": (31, 8_000), "umaze": (20, 6_000)}


def _of_maze(maze: str) -> dict[str, Recipe]:
    tokens, paper_steps = _PAPER[maze]
    short = _ABLATION_STEPS[maze]
    return {
        "default": _forcing(f"maze2d-{maze}", MODELS[maze], _STEPS[maze], AGENTS[maze]),
        "paper": _forcing(f"maze2d-{maze}-paper", _bundled(tokens), paper_steps, PAPER),
        "short": _ablation(maze, "short", short, None, {}),
        "full-sequence": _ablation(maze, "full-sequence", short, "shared_to_goal", FULL_SEQUENCE),
        "next-token": _ablation(maze, "next-token", short, "next_token_to_goal", NEXT_TOKEN),
    }


RECIPES: dict[str, dict[str, Recipe]] = {
    maze: _of_maze(maze) | baseline_recipes.of_maze(maze) for maze in ("umaze", "medium", "large")
}

ONLINE = tuple(dict.fromkeys(name for _, name in online.RECIPES))
"""Names of the recipes that learn in the environment itself: `dfplan.benchmarks.online`."""


def recipe(maze: str, name: str = "default") -> Recipe:
    """The recipe of a maze ('umaze', 'medium', 'large'). ValueError for a maze without any, KeyError for its name."""
    if maze not in RECIPES:
        raise ValueError(f"there is no recipe for the maze {maze!r}: expected {_listed(RECIPES)}")
    if name not in RECIPES[maze]:
        raise unknown("recipe", name, (*RECIPES[maze], *ONLINE))
    return RECIPES[maze][name]


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
