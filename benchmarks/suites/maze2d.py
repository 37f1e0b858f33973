"""The point mazes: all that is special to them, of widths, budgets and scores, for every command alike.

Reference returns are D4RL's (`dfplan.envs.reference`), layouts those of `dfplan.envs.maze.layouts`. Torch is not needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import gymnasium

from dfplan.benchmarks import rows
from dfplan.benchmarks.protocol import TUNING_SEEDS, evaluate
from dfplan.benchmarks.recipes.budget import Budget
from dfplan.data.spec import Spec
from dfplan.envs.reference import normalized_score
from dfplan.envs.registry import Task

SPEC = Spec(observation_dim=4, action_dim=2, goal_columns=(0, 1))
"""An observation is (x, y, vx, vy), an action (ax, ay), a goal (x, y)."""
SCORE_SEEDS = TUNING_SEEDS[:20]
"""Reset seeds of the score on a card."""
CURVE_SEEDS = TUNING_SEEDS[500:520]
"""Reset seeds of a learning curve, by which online training chooses its weights: others than those of the score."""

# Plans: nearly every way that the expert drove between two cells fits into one; 95% took less than 460, 280 and 160 steps.
# Diffusion Forcing's speed is higher in umaze because its ways are short and straight.
BUDGETS: dict[str, Budget] = {
    "umaze": Budget(
        coarse=(8, 24),
        bundled=20,
        sequence=(4, 32, 64),
        sparse=20,
        speed=1.6,
        arrival=0.45,
        omega=2.0,
        steps={
            **{"default": 10_000, "paper": 6_000, "ablation": 3_000, "sequence": 3_000, "dv": 1_500, "offline": 10_000},
            **{"dynamics": 4_000, "ppo": 204_800, "sac": 60_000, "td3": 90_000},
        },
    ),
    "medium": Budget(
        coarse=(10, 32),
        bundled=31,
        sequence=(8, 32, 256),
        sparse=24,
        speed=1.4,
        arrival=0.45,
        omega=1.0,
        steps={
            **{"default": 14_000, "paper": 8_000, "ablation": 4_000, "sequence": 5_000, "dv": 2_000, "offline": 10_000},
            **{"dynamics": 4_000, "ppo": 409_600, "sac": 90_000, "td3": 150_000},
        },
    ),
    "large": Budget(
        coarse=(12, 40),
        bundled=41,
        sequence=(8, 48, 256),
        sparse=32,
        speed=1.4,
        arrival=0.45,
        omega=1.0,
        steps={
            **{"default": 18_000, "paper": 10_000, "ablation": 5_000, "sequence": 5_000, "dv": 3_500, "offline": 12_000},
            **{"dynamics": 4_000, "ppo": 819_200, "sac": 120_000, "td3": 200_000},
        },
    ),
}
"""By maze."""


def budget(task: Task) -> Budget:
    """The budget of a task's maze. ValueError for a maze that has none."""
    rows.require_recipes(task)
    return BUDGETS[task.maze]


def with_fixed_goal(task: Task) -> str:
    """The id of the task in the same maze that has D4RL's goal."""
    return f"maze2d-{task.maze}-v1"


def with_random_goals(task: Task) -> str:
    """The id of the task in the same maze that has a new goal in each episode."""
    return f"multi2d-{task.maze}-v1"


def make(env_id: str, goal_conditioned: bool = False) -> gymnasium.Env[Any, Any]:
    """One environment to learn in; goal-conditioned, its observations are dictionaries with the goal in them."""
    options = {"goal_conditioned": True} if goal_conditioned else {}
    return gymnasium.make(env_id, disable_env_checker=True, **options)


def score(agents: Sequence[Any], env_id: str) -> dict[str, Any]:
    """What agents, one for each training seed, score on `SCORE_SEEDS`, for the card of their weights.

    'normalized' is a mean over the episodes; of several agents, each one's is in 'each', and the mean over them beside it.
    """
    each = [_score(agent, env_id) for agent in agents]
    if len(each) == 1:
        return each[0]
    return {"normalized": round(fmean(one["normalized"] for one in each), 1), "env": env_id, "each": each}


def measure(agents: Sequence[Any], env_id: str) -> dict[str, float]:
    """A point of a learning curve: the mean normalized score of agents on `CURVE_SEEDS`."""
    played = [evaluate(agent, env_id, CURVE_SEEDS, batch=len(CURVE_SEEDS)) for agent in agents]
    return {"normalized": round(fmean(_normalized(one.returns, env_id) for one in played), 1)}


def _score(agent: Any, env_id: str) -> dict[str, Any]:
    played = evaluate(agent, env_id, SCORE_SEEDS)
    return {
        "normalized": round(_normalized(played.returns, env_id), 1),
        "returns": list(played.returns),
        "success": fmean(played.success),
        "seeds": list(played.seeds),
        "env": env_id,
    }


def _normalized(returns: Sequence[float], env_id: str) -> float:
    return float(normalized_score(env_id, returns).mean())
