"""The recipes of the baselines that are trained on recorded data, for each maze.

The published ones' own settings, their budgets and where these differ from ours stand in docs/<algorithm>.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from dfplan.agents.decision_diffuser import (
    DecisionDiffuserAgent,
    DecisionDiffuserAgentConfig,
    DecisionDiffuserConfig,
    DecisionDiffuserModel,
)
from dfplan.agents.diffuser import DiffuserAgent, DiffuserAgentConfig, DiffuserModel
from dfplan.agents.diffusion_veteran import DiffusionVeteranAgent, Veteran, VeteranConfig, VeteranModelConfig
from dfplan.agents.full_sequence import SequenceConfig
from dfplan.agents.mppi import LearnedMPPIAgent, MPPIConfig
from dfplan.agents.offline.awac import AWACAgent, AWACConfig
from dfplan.agents.offline.base import ActingConfig, OfflineConfig
from dfplan.agents.offline.bc import BCConfig, BehaviorCloningAgent
from dfplan.agents.offline.cql import CQLAgent, CQLConfig
from dfplan.agents.offline.iql import IQLAgent, IQLConfig
from dfplan.agents.offline.td3_bc import TD3BCAgent, TD3BCConfig
from dfplan.benchmarks.model_based import with_field
from dfplan.benchmarks.recipe import Recipe
from dfplan.data.tokens import TokenLayout
from dfplan.planning.dynamics import DynamicsModel
from dfplan.training.config import TrainConfig

_VETERAN = {"large": (32, 3_500), "medium": (24, 2_000), "umaze": (20, 1_500)}
# Targets follow faster than in the papers, because values must reach the far end of a maze within these few steps.
_OFFLINE: dict[str, tuple[type[Any], OfflineConfig]] = {
    "bc": (BehaviorCloningAgent, BCConfig()),
    "iql": (IQLAgent, IQLConfig(alpha=0.02)),
    "cql": (CQLAgent, CQLConfig(tau=0.01)),
    "td3-bc": (TD3BCAgent, TD3BCConfig(tau=0.02)),
    "awac": (AWACAgent, AWACConfig(tau=0.02)),
}
# Steps of a token, tokens of a plan, noise levels: the papers' horizons, in tokens of several steps.
_SEQUENCE = {"large": (8, 48, 256), "medium": (8, 32, 256), "umaze": (4, 32, 64)}
_DIFFUSER_STEPS = {"large": 5_000, "medium": 5_000, "umaze": 3_000}
_DECISION_DIFFUSER_STEPS = {"large": 5_000, "medium": 5_000, "umaze": 3_000}
_OMEGA = {"large": 1.0, "medium": 1.0, "umaze": 2.0}
"""Strength of classifier-free guidance, chosen on tuning seeds."""
_OFFLINE_STEPS = {"large": 12_000, "medium": 10_000, "umaze": 10_000}


def of_maze(maze: str) -> dict[str, Recipe]:
    """The baselines' recipes for one maze, by name."""
    offline = {name: _offline(maze, name, *settings) for name, settings in _OFFLINE.items()}
    planners = {"diffuser": _diffuser(maze), "decision-diffuser": _decision_diffuser(maze), "dv": _veteran(maze)}
    return offline | planners | {"dynamics": _dynamics(maze)}


def _offline(maze: str, name: str, agent: type[Any], config: OfflineConfig) -> Recipe:
    def learner(seeds: tuple[int, ...]) -> Any:
        return agent.learner_class(replace(config, seeds=seeds))

    rate = 3e-4 if name == "cql" else 1e-3  # the penalty makes it unstable at the higher rate
    train = TrainConfig(
        steps=_OFFLINE_STEPS[maze], batch_size=256, learning_rate=rate, warmup_steps=0, weight_decay=0.0,
        gradient_clip=1e9, ema_decay=0.0, checkpoint_every=5_000, log_every=500,
    )  # fmt: skip
    return Recipe(f"maze2d-{maze}-{name}", agent, ActingConfig(), learner, train, stacked=3, curve=10)


def _diffuser(maze: str) -> Recipe:
    stride, tokens, levels = _SEQUENCE[maze]
    layout = TokenLayout(4, 2, stride=stride, observations="all", actions=True)
    learner = partial(DiffuserModel, SequenceConfig(layout, tokens=tokens, levels=levels))
    train = TrainConfig(steps=_DIFFUSER_STEPS[maze], batch_size=32)
    return Recipe(f"maze2d-{maze}-diffuser", DiffuserAgent, DiffuserAgentConfig(), learner, train)


def _decision_diffuser(maze: str) -> Recipe:
    stride, tokens, levels = _SEQUENCE[maze]
    config = DecisionDiffuserConfig(TokenLayout(4, 2, stride=stride), tokens=tokens, levels=levels)
    train = TrainConfig(steps=_DECISION_DIFFUSER_STEPS[maze], batch_size=32)
    weights, learner = f"maze2d-{maze}-decision-diffuser", partial(DecisionDiffuserModel, config)
    return Recipe(weights, DecisionDiffuserAgent, DecisionDiffuserAgentConfig(omega=_OMEGA[maze]), learner, train)


def _veteran(maze: str) -> Recipe:
    tokens, steps = _VETERAN[maze]
    learner = partial(Veteran, VeteranModelConfig(tokens=tokens))
    return Recipe(f"maze2d-{maze}-dv", DiffusionVeteranAgent, VeteranConfig(), learner, TrainConfig(steps=steps))


def _dynamics(maze: str) -> Recipe:
    train = TrainConfig(steps=4_000, batch_size=512, learning_rate=2e-3, precision="32-true")
    return Recipe(
        f"maze2d-{maze}-dynamics", LearnedMPPIAgent, MPPIConfig(), DynamicsModel, train, prepare=with_field
    )
