"""The recipes of the baselines that are trained on recorded data.

The published ones' own settings, their budgets and where these differ from ours stand in docs/<algorithm>.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dfplan.agents.decision_diffuser import (
    DecisionDiffuserAgent,
    DecisionDiffuserAgentConfig,
    DecisionDiffuserConfig,
    DecisionDiffuserModel,
)
from dfplan.agents.diffuser import DiffuserAgent, DiffuserAgentConfig, DiffuserModel
from dfplan.agents.diffusion_veteran import DiffusionVeteranAgent, Veteran, VeteranConfig, VeteranModelConfig
from dfplan.agents.mppi import LearnedMPPIAgent, MPPIConfig
from dfplan.agents.offline.awac import AWACAgent, AWACConfig
from dfplan.agents.offline.base import ActingConfig, OfflineConfig
from dfplan.agents.offline.bc import BCConfig, BehaviorCloningAgent
from dfplan.agents.offline.cql import CQLAgent, CQLConfig
from dfplan.agents.offline.iql import IQLAgent, IQLConfig
from dfplan.agents.offline.td3_bc import TD3BCAgent, TD3BCConfig
from dfplan.benchmarks.recipes.budget import Budget
from dfplan.data.goal_paths import GoalPaths
from dfplan.data.spec import Spec
from dfplan.data.tokens import TokenLayout
from dfplan.data.transitions import Replay, changes
from dfplan.data.windows import ReturnWindows
from dfplan.planning.dynamics import DynamicsConfig, DynamicsModel
from dfplan.planning.full_sequence import SequenceConfig
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe


def offline(agent: type[Any], config: OfflineConfig, learning_rate: float = 1e-3) -> Callable[[Spec, Budget], Recipe]:
    """The recipe of an offline learner: three training seeds in one run, and a learning curve."""

    def recipe(spec: Spec, budget: Budget) -> Recipe:
        model = replace(config, observation_dim=spec.observation_dim, action_dim=spec.action_dim)
        train = TrainConfig(
            steps=budget.steps["offline"],
            batch_size=256,
            learning_rate=learning_rate,
            warmup_steps=0,
            weight_decay=0.0,
            gradient_clip=1e9,
            ema_decay=0.0,
            checkpoint_every=5_000,
            log_every=500,
        )
        batches = lambda data: Replay(data, model.seeds)  # noqa: E731
        return Recipe(agent, agent.learner_class, model, ActingConfig(), train, batches, curve=10)

    return recipe


# Targets follow faster than in the papers, because values must reach the far end of a maze within these few steps.
bc = offline(BehaviorCloningAgent, BCConfig())
iql = offline(IQLAgent, IQLConfig(alpha=0.02))
cql = offline(CQLAgent, CQLConfig(tau=0.01), learning_rate=3e-4)  # the penalty makes it unstable at the higher rate
td3_bc = offline(TD3BCAgent, TD3BCConfig(tau=0.02))
awac = offline(AWACAgent, AWACConfig(tau=0.02))


def diffuser(spec: Spec, budget: Budget) -> Recipe:
    """Diffuser: the paper's horizon, in tokens of several steps of observation and action."""
    stride, tokens, levels = budget.sequence
    layout = TokenLayout(spec.observation_dim, spec.action_dim, stride=stride, observations="all", actions=True)
    model = SequenceConfig(layout, tokens=tokens, levels=levels, goal_columns=spec.goal_columns)
    return _sequence(DiffuserAgent, DiffuserModel, model, DiffuserAgentConfig(), budget)


def decision_diffuser(spec: Spec, budget: Budget) -> Recipe:
    """Decision Diffuser: states alone, the strength of its guidance chosen on tuning seeds."""
    stride, tokens, levels = budget.sequence
    layout = TokenLayout(spec.observation_dim, spec.action_dim, stride=stride)
    model = DecisionDiffuserConfig(layout, tokens=tokens, levels=levels, goal_columns=spec.goal_columns)
    acting = DecisionDiffuserAgentConfig(omega=budget.omega)
    return _sequence(DecisionDiffuserAgent, DecisionDiffuserModel, model, acting, budget)


def _sequence(agent: type[Any], learner: type[Any], model: SequenceConfig, acting: Any, budget: Budget) -> Recipe:
    train = TrainConfig(steps=budget.steps["sequence"], batch_size=32)
    return Recipe(agent, learner, model, acting, train, lambda data: ReturnWindows(data, model.steps + 1).sample)


def veteran(spec: Spec, budget: Budget) -> Recipe:
    """Diffusion Veteran."""
    model = VeteranModelConfig(
        spec.observation_dim, spec.action_dim, positions=spec.goal_columns, tokens=budget.sparse
    )
    return Recipe(
        DiffusionVeteranAgent,
        Veteran,
        model,
        VeteranConfig(),
        TrainConfig(steps=budget.steps["dv"]),
        batches=lambda data: GoalPaths(data, model.tokens, model.stride, model.discount).sample,
    )


def dynamics(spec: Spec, budget: Budget) -> Recipe:
    """The learned dynamics of the row 'mppi-learned'."""
    train = TrainConfig(
        steps=budget.steps["dynamics"], batch_size=512, learning_rate=2e-3, precision="32-true"
    )
    model = DynamicsConfig(spec.observation_dim, spec.action_dim)
    return Recipe(LearnedMPPIAgent, DynamicsModel, model, MPPIConfig(action_dim=spec.action_dim), train, changes)
