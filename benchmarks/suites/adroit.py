"""D4RL's Adroit hand on the data that Minari publishes. Scored as D4RL does, between a random policy and an expert."""

from __future__ import annotations

from dfplan.benchmarks.suites.kitchen import extremes
from dfplan.benchmarks.suites.suite import Suite
from dfplan.envs.registry import HAND_LEVELS, HANDS

SUITE = Suite(
    tasks=tuple(f"{hand}-{level}-minari" for hand in HANDS for level in HAND_LEVELS),
    rows=("diffusion-forcing", "bc", "random"),
    reference=extremes,
    recipes={"default": "dfplan.benchmarks.recipes.diffusion_forcing:chunks"},
)
