"""OGBench's point mazes (Park et al. 2025): how far plans reach in them. Scored by success.

A goal is a whole observation, a position. The sizes of plans follow from the data, so that eight sets share one recipe.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dfplan.benchmarks.recipes.budget import Budget, budget_of
from dfplan.benchmarks.suites.suite import Suite
from dfplan.data.spec import Spec
from dfplan.envs.registry import POINT_MAZES, Task, short_name

if TYPE_CHECKING:
    from dfplan.data.trajectories import Trajectories
    from dfplan.data.windows import BatchSource
    from dfplan.planning.model import TrajectoryModelConfig
    from dfplan.training.fit import Recipe

TOKENS, REACH = 40, 4
"""Tokens of the longest plan, and its steps, as a multiple of the steps after which positions in the data have mixed: ways
without luck may be that long."""
PLAUSIBILITY = {"noise": (0.08, 0.6), "gain": 3.0}
"""Noise on steps between positions: from a little more than recorded steps differ, up to the distance through a wall."""


def read(task: Task, source: str) -> Any:
    """The data, with a whole observation as goal."""
    from dfplan.data.readers import load  # late: torch takes seconds to import

    return load(source, goal=(0, 1))


def default(spec: Spec, budget: Budget) -> Recipe:
    """The recipe of the row 'diffusion-forcing': plans without luck, because the data are cut where chance decided, and all
    places are learned equally well."""
    recipe = _sized(spec, budget, TOKENS, REACH)
    plan = replace(recipe.acting.plan, horizons=10, samples=8)
    acting = replace(recipe.acting, plan=plan, replan_every=50)
    return replace(recipe, acting=acting, batches=partial(_without_luck, recipe.model))


def plans(spec: Spec, budget: Budget) -> Recipe:
    """The recipe of the row 'diffusion-forcing-plans': shorter plans, as recorded, which are weighed by what chance makes of
    them (`dfplan.planning.trials`)."""
    recipe = _sized(spec, budget, 30, 3)
    acting = replace(recipe.acting, plan=replace(recipe.acting.plan, trials=8, samples=8, margin=-12.0))
    return replace(recipe, model=replace(recipe.model, outcomes=8), acting=acting)


def _sized(spec: Spec, budget: Budget, tokens: int, reach: int) -> Recipe:
    from dfplan.benchmarks.recipes import diffusion_forcing  # late, as above
    from dfplan.models import TransformerConfig

    steps = min(spec.longest - 1, reach * spec.mixing)
    stride = -(-steps // tokens)
    coarse = (stride, steps // stride + 1)
    recipe = diffusion_forcing.default(spec, replace(budget, coarse=coarse, plausibility=PLAUSIBILITY, speed=1.2))
    small = TransformerConfig(width=96, depth=3, octaves=5)  # a token is a place
    return replace(recipe, model=replace(recipe.model, model=small))


def _without_luck(model: TrajectoryModelConfig, data: Trajectories) -> BatchSource:
    from dfplan.data.chance import without_chance
    from dfplan.data.queries import Queries

    stride = model.layout.stride
    return Queries(without_chance(data, stride), model.tokens, stride, evenly=model.goal_columns).sample


def budget(task: Task | None, spec: Spec) -> Budget:
    """As the data say, but for graph search: noise in the data makes ways look shorter than they are, so it looks less far
    ahead."""
    own = budget_of(spec)
    return replace(own, acting={**own.acting, "graph-search": {"lookahead": 3}})


SUITE = Suite(
    tasks=tuple(short_name(env_id) for env_id in POINT_MAZES),
    rows=("diffusion-forcing", "graph-search", "random"),
    read=read,
    budget=budget,
    recipes={name: f"dfplan.benchmarks.suites.pointmaze:{name}" for name in ("default", "plans")},
)
