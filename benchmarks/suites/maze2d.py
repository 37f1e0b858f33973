"""D4RL's point mazes: their widths, budgets, scores and pictures, for all commands.

Reference returns are D4RL's (`dfplan.envs.reference`), layouts those of `dfplan.envs.maze.layouts`. Torch is not needed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfplan.benchmarks.recipes.budget import Budget
from dfplan.benchmarks.suites.suite import Suite
from dfplan.data.spec import Spec
from dfplan.envs.reference import reference
from dfplan.envs.registry import MAZES, Task

SPEC = Spec(observation_dim=4, action_dim=2, goal_columns=(0, 1))
"""An observation is (x, y, vx, vy), an action (ax, ay), a goal (x, y)."""

# Targets follow faster than in the papers, because values must reach the far end of a maze within these few steps. Places are
# rewarded, velocities are what a PD controller damps, and a plan's end is at rest.
MODEL: dict[str, dict[str, Any]] = {
    "iql": {"alpha": 0.02},
    "cql": {"tau": 0.01},
    "td3-bc": {"tau": 0.02},
    "awac": {"tau": 0.02},
    "dv": {"positions": SPEC.goal_columns},
}
"""What baselines learn in the mazes in another way than elsewhere, by recipe."""
PLAUSIBILITY = {"noise": (0.08, 0.6), "gain": 3.0}
"""Of steps between places: from a little more than they differ, to a wall and what is behind it."""


_NAMES = ("umaze", "medium", "large")
_PLANS: dict[str, tuple[Any, Any, Any]] = {
    "coarse": ((8, 24), (10, 32), (12, 40)),
    "bundled": (20, 31, 41),
    "sequence": ((4, 32, 64), (8, 32, 256), (8, 48, 256)),
    "sparse": ((15, 20), (15, 24), (15, 32)),
    "speed": (1.7, 1.8, 1.8),
}
"""By maze. Nearly every way that the expert drove between two cells fits into a plan; 95% took less than 160, 280 and 460
steps. Diffusion Forcing's speed was chosen on tuning seeds."""
_DIFFUSER: tuple[dict[str, Any], ...] = ({}, {}, {"steps": 256, "eta": 1.0})
"""How Diffuser's plans are drawn: in the large maze by the paper's ancestral steps, which score more there on tuning seeds."""
_OMEGA = (2.0, 1.0, 1.0)
"""The strength of Decision Diffuser's guidance, chosen on tuning seeds."""
_STEPS = {
    "default": (10_000, 14_000, 18_000),
    "paper": (4_000, 6_000, 8_000),
    "actions": (4_000, 7_000, 10_000),
    "ablation": (3_000, 4_000, 5_000),
    "sequence": (3_000, 5_000, 5_000),
    "diffuser": (3_000, 5_000, 14_000),
    "dv": (1_500, 2_000, 3_500),
    "offline": (10_000, 10_000, 12_000),
    "iql": (10_000, 60_000, 100_000),
    "dynamics": (4_000, 4_000, 4_000),
    "ppo": (204_800, 409_600, 819_200),
    "sac": (60_000, 90_000, 120_000),
    "td3": (90_000, 150_000, 200_000),
}
BUDGETS = {
    maze: Budget(
        **{name: values[place] for name, values in _PLANS.items()},
        steps={name: values[place] for name, values in _STEPS.items()},
        arrival=0.45,
        octaves=5,
        plausibility=PLAUSIBILITY,
        model=MODEL,
        planner=f"maze2d-{maze}",
        acting={
            "diffuser": {"execution": "pd", "velocity_columns": (2, 3), **_DIFFUSER[place]},
            "decision-diffuser": {"omega": _OMEGA[place]},
        },
    )
    for place, maze in enumerate(_NAMES)
}
"""By maze."""


def budget(task: Task, spec: Spec = SPEC) -> Budget:
    """The budget of a task's maze. ValueError for a maze that has none."""
    maze = MAZES[task.env_id].maze
    if maze not in BUDGETS:
        raise ValueError(f"there is no recipe for the maze {maze!r}: expected one of {', '.join(BUDGETS)}")
    return BUDGETS[maze]


def learns_in(task: Task, any_goal: bool) -> str:
    """The id of the task in the same maze that has a new goal in each episode, or D4RL's goal."""
    mazes = (one for one in MAZES.values() if one.data_id == task.data_id and one.reward == "sparse")
    return next(one.env_id for one in mazes if one.random_goal == any_goal)


def extremes(task: Task) -> dict[str, float]:
    """The raw returns that D4RL's score calls 0 and 100."""
    entry = reference(task.env_id)
    return {"min": entry.min_return, "max": entry.max_return}


def read(task: Task, source: str) -> Any:
    """The data; of dictionaries with goals the observation alone, in which the goal's columns are."""
    from dfplan.data.features import Features  # late: torch takes seconds to import
    from dfplan.data.readers import load

    data = load(source)
    return load(source, features=Features(keys=("observation",))) if "observation" in data.features.keys else data


def pictures(folder: Path, task: Task, *drawn: Any) -> None:
    """Paths in the maze, and a plan being denoised."""
    from dfplan.benchmarks.report.pictures import write  # late: matplotlib takes a second to import

    write(folder, MAZES[task.env_id].layout, *drawn)


SUITE = Suite(
    tasks=tuple(f"{family}-{maze}" for family in ("maze2d", "multi2d") for maze in BUDGETS),
    rows=("diffusion-forcing", "diffuser-pd", "decision-diffuser", "iql", "sac", "expert", "random"),
    reference=extremes,
    spec=SPEC,
    budget=budget,
    learns_in=learns_in,
    with_goal={"goal_conditioned": True},
    read=read,
    pictures=pictures,
    places=lambda task, observations: {"particle": observations[..., :2]},
)
