"""The recipes of Diffusion Forcing.

'default' is the best one found with the paper's parts: coarse state tokens, a bidirectional network, the goal as a
known clean token, zig-zag schedule, learned inverse dynamics. 'actions' is the same, but the first of a plan's actions are
diffused with it, and played. 'paper' follows Chen et al. 2024: causal, bundles of 10
steps of observation and action, zig-zag schedule, guidance by the distance to the goal, diffused actions; like the published
code it draws no futures, and is guided by the cost of the mean prediction.
'short', 'full-sequence' and 'next-token' are the paper's ablation: the default's network, loss and agent with less
training, of which only the draw of noise levels differs (and the scheduling matrix that fits it).
How each of them plans and acts is written into the header of its weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dfplan.agents import recipes
from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.benchmarks.recipes.budget import Budget
from dfplan.data.spec import Spec
from dfplan.data.tokens import TokenLayout
from dfplan.data.windows import Windows
from dfplan.models import RecurrentConfig, TransformerConfig
from dfplan.planning.model import PlausibilityConfig, TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan_config import PlanConfig
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe


def default(spec: Spec, budget: Budget) -> Recipe:
    """The row 'diffusion-forcing': the goal is a part of a plan's last token, and the speed there is left open."""
    model = replace(_coarse(spec, budget), parts=bool(spec.goal_columns))
    return _forcing(model, _tracking(budget), budget.steps["default"])


def paper(spec: Spec, budget: Budget) -> Recipe:
    """The row 'diffusion-forcing-paper'."""
    model = TrajectoryModelConfig(
        TokenLayout(spec.observation_dim, spec.action_dim, stride=10, observations="all", actions=True),
        goal_columns=spec.goal_columns,
        tokens=budget.bundled,
        model=TransformerConfig(causal=True, octaves=budget.octaves),
        plausibility=None,
        features=spec.features,
        prediction="x0",
        weighting="uniform",
        draws={"from_start": 1.0},
    )
    scale = 8.0 * budget.bundled  # the published code adds distances up, and here they are averaged over the tokens
    plan = PlanConfig(goal="guided", horizons=1, uncertainty=0.2, guide="throughout", scale=scale, fading=True)
    acting = AgentConfig(plan, execution="diffused_actions", replan_every=10)
    return _forcing(model, acting, budget.steps["paper"], batch_size=32)


def actions(spec: Spec, budget: Budget) -> Recipe:
    """The row 'diffusion-forcing-actions': the default recipe, but a plan's first token holds the actions that lead to it."""
    model, acting = _coarse(spec, budget), _tracking(budget)
    layout = replace(model.layout, actions=True)
    model = replace(model, layout=layout, parts=True, acted=1, inverse=False)
    plan = replace(acting.plan, temperature=0.0)
    acting = AgentConfig(plan, execution="diffused_actions", replan_every=min(6, layout.stride))
    return _forcing(model, acting, budget.steps["actions"], batch_size=32)


def recurrent(spec: Spec, budget: Budget) -> Recipe:
    """The row 'diffusion-forcing-recurrent': the paper's recipe with the paper's recurrent network."""
    recipe = paper(spec, budget)
    return _forcing(replace(recipe.model, model=RecurrentConfig()), recipe.acting, recipe.train.steps)


def chunks(spec: Spec, budget: Budget) -> Recipe:
    """The row 'diffusion-forcing-chunks', and in some suites the default: `agents.recipes.chunks` by a task's numbers."""
    return _by_budget(recipes.chunks(spec), "chunks", budget)


def plans(spec: Spec, budget: Budget) -> Recipe:
    """The row 'diffusion-forcing-plans': `agents.recipes.plans` by a task's numbers."""
    return _by_budget(recipes.plans(spec), "plans", budget)


def _by_budget(recipe: Recipe, name: str, budget: Budget) -> Recipe:
    model, acting = replace(recipe.model, **budget.model.get(name, {})), dict(budget.acting.get(name, {}))
    acting["plan"] = replace(recipe.acting.plan, **acting.get("plan", {}))
    return replace(
        recipe,
        model=model,
        batches=recipes.queries(model),
        acting=replace(recipe.acting, **acting),
        train=replace(recipe.train, steps=budget.steps.get(name, recipe.train.steps)),
    )


def short(spec: Spec, budget: Budget) -> Recipe:
    """The default recipe with the ablation's shorter training."""
    return _forcing(_coarse(spec, budget), _tracking(budget), budget.steps["ablation"])


def full_sequence(spec: Spec, budget: Budget) -> Recipe:
    """The short recipe with one noise level for all tokens, which are then denoised together."""
    return _ablation(spec, budget, "shared_to_goal", {"uncertainty": 0.0})


def next_token(spec: Spec, budget: Budget) -> Recipe:
    """The short recipe with a clean past and one noisy token; tokens are then denoised one after another."""
    return _ablation(spec, budget, "next_token_to_goal", {"uncertainty": 2.0, "steps": 2})


def _coarse(spec: Spec, budget: Budget) -> TrajectoryModelConfig:
    stride, tokens = budget.coarse
    layout = TokenLayout(spec.observation_dim, spec.action_dim, stride=stride)
    return TrajectoryModelConfig(
        layout,
        goal_columns=spec.goal_columns,
        tokens=tokens,
        model=TransformerConfig(octaves=budget.octaves),
        weighting="uniform",
        plausibility=PlausibilityConfig(**budget.plausibility),
        features=spec.features,
    )


def _tracking(budget: Budget) -> AgentConfig:
    return AgentConfig(PlanConfig(steps=4, uncertainty=0.1), speed=budget.speed, arrival=budget.arrival)


def _ablation(spec: Spec, budget: Budget, draw: str, plan: dict[str, Any]) -> Recipe:
    recipe = short(spec, budget)
    acting = replace(recipe.acting, plan=replace(recipe.acting.plan, **plan))
    return _forcing(replace(recipe.model, draws={draw: 1.0}), acting, recipe.train.steps)


def _forcing(model: TrajectoryModelConfig, acting: AgentConfig, steps: int, batch_size: int = 64) -> Recipe:
    return Recipe(
        DiffusionForcingAgent,
        TrajectoryModel,
        model,
        acting,
        TrainConfig(steps=steps, batch_size=batch_size),
        batches=lambda data: Windows(data, model.layout.steps(model.tokens)).sample,
    )
