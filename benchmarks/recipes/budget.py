"""What a recipe is given for one task: how far plans reach, how long to train, and what is right for this task alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dfplan.data.spec import Spec

Settings = Mapping[str, Mapping[str, Any]]
"""Fields of a config, by recipe."""


@dataclass(frozen=True)
class Budget:
    """The numbers of one task that recipes ask for; tokens count the start."""

    coarse: tuple[int, int]
    """Environment steps between two tokens of a Diffusion Forcing plan, and its tokens."""
    bundled: int
    """Tokens of a plan of the paper's recipe, each a bundle of ten steps."""
    sequence: tuple[int, int, int]
    """Steps of a token, tokens of a plan and noise levels of Diffuser and Decision Diffuser."""
    sparse: tuple[int, int]
    """Environment steps between two tokens of a plan of Diffusion Veteran, and its tokens."""
    steps: Mapping[str, int]
    """Optimizer steps by recipe, or by a group of recipes; of online recipes, decisions."""
    speed: float = 1.0
    """Planned steps that a Diffusion Forcing agent plays in one environment step."""
    arrival: float = 0.0
    """Distance from its goal, in recorded units, within which a Diffusion Forcing agent stays there."""
    octaves: int = 3
    """Sines and cosines by which Diffusion Forcing and Diffusion Veteran see each column: more where borders are sharp."""
    plausibility: Mapping[str, Any] = field(default_factory=dict)
    """Fields of Diffusion Forcing's `PlausibilityConfig` that are others than its own."""
    model: Settings = field(default_factory=dict)
    """What is learned in another way than the recipe's: fields of the learner's config, by recipe."""
    acting: Settings = field(default_factory=dict)
    """What acts in another way: fields of the agent's config, by recipe; under 'plan', those of its `PlanConfig`."""
    planner: str = ""
    """Shipped weights of the planner that a policy is distilled from; '': there is none."""
    curve: int = 10
    """Points of an offline learner's learning curve; 0 where episodes are too slow to play so often."""


STEPS = {
    **{"default": 10_000, "paper": 10_000, "actions": 10_000, "ablation": 5_000, "sequence": 5_000, "dv": 3_000},
    **{"offline": 20_000, "dynamics": 5_000, "ppo": 400_000, "sac": 100_000, "td3": 100_000},
}
"""Optimizer steps for data of which nothing else is known."""


def budget_of(spec: Spec, steps: Mapping[str, int] = STEPS) -> Budget:
    """A budget by the data's own measures: plans as long as half of the longest episode, up to 256 steps, made anew often."""
    reach = min(max(spec.longest // 2, 4), 256)
    stride, sparse = -(-reach // 31), min(15, max(reach // 4, 1))
    often = {"replan_every": max(reach // 8, 1)}
    return Budget(
        coarse=(stride, reach // stride + 1),
        bundled=max(reach // 10, 1) + 1,
        sequence=(stride, reach // stride + 1, 64),
        sparse=(sparse, reach // sparse + 1),
        steps=steps,
        model={"bc": {"goal_columns": spec.goal_columns, "longest": reach}, "diffuser": {"end": "goal"}},
        acting={"diffuser": often, "decision-diffuser": often},
    )
