"""Gymnasium's walking robots on data of our own. Scored by the raw return: D4RL's references are of other environments."""

from dfplan.benchmarks.suites.suite import Suite

BODIES, LEVELS = ("hopper", "walker2d", "halfcheetah"), ("medium", "expert", "mixed")
SUITE = Suite(
    tasks=tuple(f"{body}-{level}-own" for body in BODIES for level in LEVELS),
    recipes={"default": "dfplan.benchmarks.recipes.diffusion_forcing:chunks"},
)
