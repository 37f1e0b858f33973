"""Gymnasium's walking robots on data of our own. Scored by the raw return: D4RL's references are of other environments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dfplan.benchmarks.recipes.budget import Budget, budget_of
from dfplan.benchmarks.suites.suite import Suite
from dfplan.data.spec import Spec

BODIES, LEVELS = ("hopper", "walker2d", "halfcheetah"), ("medium", "expert", "mixed")
REPLAN_EVERY = {"walker2d": 2}
"""Actions of a plan that are played, where they are not the five of its first token: two legs fall soon after a wrong one."""
TEMPERATURE = {"halfcheetah": 0.5}
"""Of the plans' noise, where it is not 0: a halfcheetah whose plans have none does not get away from its start."""
SEQUENCE = (4, 9, 20)
"""Of Diffuser: plans of 32 steps and 20 noise levels, as published for the hopper, in tokens of four steps."""


def budget(task: Any, spec: Spec) -> Budget:
    """As the data say, but for plans that are made anew after each token."""
    own, body = budget_of(spec), task.env_id.split("-")[0]
    chunks = {"replan_every": REPLAN_EVERY.get(body, 5), "plan": {"temperature": TEMPERATURE.get(body, 0.0)}}
    diffuser = {"replan_every": SEQUENCE[0], "steps": 5, "scale": 10.0}
    return replace(own, sequence=SEQUENCE, acting={**own.acting, "chunks": chunks, "diffuser": diffuser})


SUITE = Suite(
    tasks=tuple(f"{body}-{level}-own" for body in BODIES for level in LEVELS),
    rows=("diffusion-forcing", "diffuser-actions", "bc", "random"),
    budget=budget,
    recipes={"default": "dfplan.benchmarks.recipes.diffusion_forcing:chunks"},
)
