"""Recipes of Diffusion Forcing for any recorded data: two ways to act with one model.

`plans`: tokens of states alone, a goal in the last one, inverse dynamics that tracks them. `chunks`: a condition token, then
tokens of a state and the actions that lead there; some of the actions of a plan are played, and then the next one is made.
All sizes come from the data. A suite may change any field of what is returned here by `dataclasses.replace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.data.queries import Queries
from dfplan.data.spec import Spec
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import BatchSource
from dfplan.models import TransformerConfig
from dfplan.names import unknown
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.model_config import Condition, PlausibilityConfig, TrajectoryModelConfig
from dfplan.planning.plan_config import PlanConfig
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe

STEPS = 6_000
"""Optimizer steps, unless a number or a time is asked for."""
CHUNK, PLANNED = 5, 3
"""Steps of a token of `chunks`, and tokens of its plans."""
TOKENS = 32
"""Tokens of the longest plan of `plans`, which spans the time in which the goal's columns change."""


def chunks(spec: Spec) -> Recipe:
    """Plans of `PLANNED` tokens of `CHUNK` actions, of which the first two thirds are played.

    Asked by a goal where the data have goal columns, else by a return where their rewards differ (one that nine of ten recorded
    episodes stay below, unless another is asked for), else by nothing. Of data that hold neither, the present alone may not say
    what is to be done: the model sees the two tokens before it.
    """
    condition = _condition(spec)
    history = 0 if condition else 2
    model = TrajectoryModelConfig(
        TokenLayout(spec.observation_dim, spec.action_dim, stride=CHUNK, actions=True),
        goal_columns=spec.goal_columns,
        tokens=history + 1 + PLANNED,
        model=TransformerConfig(octaves=3),
        weighting="uniform",
        draws={"independent": 0.5, "ramp": 0.5},
        plausibility=None,
        features=spec.features,
        parts=True,
        condition=condition,
        goal_within=max(spec.mixing, 1) if "goal" in condition else 0,
        history=history,
        inverse=False,
        value=TransformerConfig(width=64, depth=2, octaves=0) if spec.rewards else None,
    )
    asked = "return" in condition
    plan = PlanConfig(steps=8, uncertainty=0.0, policy_tokens=PLANNED, temperature=0.0 if asked else 1.0)
    wished = 0.9 if asked else None
    acting = AgentConfig(plan, execution="diffused_actions", replan_every=10, return_quantile=wished)
    return _recipe(model, acting, TrainConfig(steps=STEPS, batch_size=128))


def plans(spec: Spec) -> Recipe:
    """Plans of states to a goal at their end, of any length, which learned inverse dynamics tracks.

    Without goals the model is a policy, or plans by costs alone.
    """
    longest = max(spec.longest - 1, 1)
    reach = min(longest, 2 * spec.mixing) if spec.goal_columns else longest
    stride = max(1, -(-reach // TOKENS))
    tokens = max(2, min(TOKENS, reach // stride) + 1)
    model = TrajectoryModelConfig(
        TokenLayout(spec.observation_dim, spec.action_dim, stride=stride),
        goal_columns=spec.goal_columns,
        tokens=tokens,
        weighting="uniform",
        longest_gap=max(2, stride),
        plausibility=PlausibilityConfig(columns="all"),
        features=spec.features,
        parts=bool(spec.goal_columns),
    )
    acting = AgentConfig(replan_every=2 * stride, lookahead=max(1, stride // 2))
    return _recipe(model, acting, TrainConfig(steps=STEPS))


RECIPES: Mapping[str, Callable[[Spec], Recipe]] = {"chunks": chunks, "plans": plans}
"""The recipes by name."""


def require_recipe(name: str) -> None:
    """Raise ValueError for a name of no recipe."""
    if name not in RECIPES:
        raise ValueError(str(unknown("recipe", name, RECIPES).args[0]))


def recipe_for(data: Trajectories, recipe: str | Recipe, **train: int | None) -> Recipe:
    """The recipe of that name for the data, or the given one; `train` are fields of its TrainConfig, None for its own.

    Raises ValueError for another name.
    """
    if isinstance(recipe, str):
        require_recipe(recipe)
        recipe = RECIPES[recipe](Spec.of(data))
    changes: dict[str, Any] = {name: value for name, value in train.items() if value is not None}
    return replace(recipe, train=replace(recipe.train, **changes)) if changes else recipe


def _condition(spec: Spec) -> tuple[Condition, ...]:
    if spec.goal_columns:
        return ("goal",)
    return ("return",) if spec.rewards else ()


def _recipe(model: TrajectoryModelConfig, acting: AgentConfig, train: TrainConfig) -> Recipe:
    return Recipe(DiffusionForcingAgent, TrajectoryModel, model, acting, train, queries(model))


def queries(model: TrajectoryModelConfig) -> Callable[[Trajectories], BatchSource]:
    """What a model of this config learns from, as a function of the data."""
    within = model.goal_within if "goal" in model.condition else 0
    things = (model.goal_columns, model.goal_groups, model.alike, model.kinds)
    how = (model.tokens, model.layout.stride, model.history, within, *things)
    return lambda data: Queries(data, *how).sample
