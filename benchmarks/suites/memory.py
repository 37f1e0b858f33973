"""Memory swap: an arm exchanges two objects, and what to do next is decided by what was seen before. Scored by success.

All rows learn from the same demonstrations, without rewards. What they see of the past is what tells them apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dfplan.benchmarks.recipes.budget import Budget, budget_of
from dfplan.benchmarks.suites.ogbench import MIDDLE, SCALE
from dfplan.benchmarks.suites.suite import Suite
from dfplan.data.spec import Spec
from dfplan.envs.registry import MEMORY_SWAPS, short_name

if TYPE_CHECKING:
    from dfplan.training.fit import Recipe

STRIDE, HISTORY, PLANNED = 10, 17, 2
"""Steps of a token; tokens before the present, which reach from the last of the four times at rest to the first; tokens of
a plan."""
REPLAN_EVERY, DENOISING, TEMPERATURE = 1, 4, 0.0
"""Steps that are played of a plan, steps in which it is denoised, and the deviation of the noise that it begins with: what to
do is decided by the past, so that no draw has to be kept to."""
REPLAN_PICTURES = 8
"""The same for pictures, which show less exactly where an object is: a plan that has begun is followed for longer."""
MISSING = 0.4
"""Largest share of the observations that are unknown in a training sequence."""
JUMPS = 1.5
"""Multiple of the largest recorded change beyond which an observation is taken for an outlier."""
SEEN = {"observed": 35, "every": 5}
"""Observations of the Diffusion Policy that is given a history, and the steps between them: they reach as far back."""
STEPS = {"default": 10_000, "sequence": 4_000, "offline": 4_000, "gru": 1_200}
"""Optimizer steps."""


def budget(task: Any, spec: Spec) -> Budget:
    """As the data say, but for the number of optimizer steps; an offline learner is not scored on the way."""
    own = budget_of(spec)
    model = {**own.model, "diffusion-policy-history": SEEN}
    return replace(own, steps={**own.steps, **STEPS}, model=model, curve=0)


def default(spec: Spec, budget: Budget, **changes: Any) -> Recipe:
    """Diffusion Forcing: chunks of actions after a history of observations and actions, some of which are unknown, as are
    outliers that nobody has marked. `changes` are fields of its model."""
    recipe = _chunks(spec, budget, missing=MISSING, **changes)
    every = REPLAN_PICTURES if spec.features.keys else REPLAN_EVERY
    return replace(recipe, acting=replace(recipe.acting, jumps=JUMPS, replan_every=every))


def recurrent(spec: Spec, budget: Budget) -> Recipe:
    """The same with the paper's network, whose latent sums up all earlier tokens."""
    from dfplan.models import RecurrentConfig  # late: torch takes seconds to import

    return default(spec, budget, model=RecurrentConfig())


def next_token(spec: Spec, budget: Budget) -> Recipe:
    """Next-token diffusion with the same network: a clean past, one noisy token, and tokens that are drawn in turn."""
    recipe = _chunks(spec, budget, draws={"next_token": 1.0})
    plan = replace(recipe.acting.plan, uncertainty=float(recipe.acting.plan.steps))
    return replace(recipe, acting=replace(recipe.acting, plan=plan))


def _chunks(spec: Spec, budget: Budget, **changes: Any) -> Recipe:
    from dfplan.agents import recipes  # late: torch takes seconds to import
    from dfplan.models import TransformerConfig

    recipe = recipes.chunks(spec)
    layout = replace(recipe.model.layout, stride=STRIDE)
    tokens, network = HISTORY + 1 + PLANNED, TransformerConfig(width=96, depth=3)
    fields: dict[str, Any] = {"layout": layout, "condition": (), "value": None, "model": network}
    model = replace(recipe.model, **{**fields, "tokens": tokens, "history": HISTORY, **changes})
    plan = replace(recipe.acting.plan, policy_tokens=PLANNED, steps=DENOISING, temperature=TEMPERATURE)
    return replace(
        recipe,
        model=model,
        batches=recipes.queries(model),
        acting=replace(recipe.acting, plan=plan, replan_every=REPLAN_EVERY, return_quantile=None),
        train=replace(recipe.train, steps=budget.steps["default"], batch_size=64),
    )


def places(task: Any, observations: Any) -> dict[str, Any]:
    """Of planned observations the gripper, the cube and the can, (..., 3) in meters; where a camera sees these two, the gripper
    alone."""
    pictured = "observe" in MEMORY_SWAPS[task.env_id]
    columns = {"gripper": observations.shape[-1] - 5} if pictured else {"gripper": 0, "cube": 5, "can": 8}
    return {name: observations[..., first : first + 3] / SCALE + MIDDLE for name, first in columns.items()}


SUITE = Suite(
    tasks=tuple(short_name(name) for name, how in MEMORY_SWAPS.items() if "observe" not in how),  # cameras need OpenGL
    rows=(
        *("diffusion-forcing", "diffusion-forcing-recurrent", "next-token", "gru"),
        *("diffusion-policy", "diffusion-policy-history", "bc", "random"),
    ),
    budget=budget,
    recipes={
        "default": "dfplan.benchmarks.suites.memory:default",
        "next-token": "dfplan.benchmarks.suites.memory:next_token",
        "recurrent": "dfplan.benchmarks.suites.memory:recurrent",
    },
    places=places,
)
