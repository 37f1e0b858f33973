"""The recipes of the baselines that are trained on recorded data.

The published ones' own settings, their budgets and where these differ from ours stand in docs/<algorithm>.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dfplan.agents import distillation
from dfplan.agents.decision_diffuser import (
    DecisionDiffuserAgent,
    DecisionDiffuserAgentConfig,
    DecisionDiffuserConfig,
    DecisionDiffuserModel,
)
from dfplan.agents.diffuser import DiffuserAgent, DiffuserAgentConfig, DiffuserConfig, DiffuserModel
from dfplan.agents.diffusion_policy import (
    DiffusionPolicyAgent,
    DiffusionPolicyConfig,
    DiffusionPolicyModel,
    PolicyConfig,
    windows,
)
from dfplan.agents.diffusion_veteran import DiffusionVeteranAgent, Veteran, VeteranConfig, VeteranModelConfig, paths
from dfplan.agents.graph_search import GraphModel, GraphModelConfig, GraphSearchAgent, GraphSearchConfig
from dfplan.agents.loading import from_pretrained
from dfplan.agents.mppi import LearnedMPPIAgent, MPPIConfig
from dfplan.agents.offline.awac import AWACAgent, AWACConfig
from dfplan.agents.offline.base import ActingConfig, OfflineConfig
from dfplan.agents.offline.bc import BCConfig, BehaviorCloningAgent
from dfplan.agents.offline.cql import CQLAgent, CQLConfig
from dfplan.agents.offline.gciql import GCIQLAgent, GCIQLConfig
from dfplan.agents.offline.iql import IQLAgent, IQLConfig
from dfplan.agents.offline.td3_bc import TD3BCAgent, TD3BCConfig
from dfplan.agents.recurrent_policy import (
    RecurrentActing,
    RecurrentPolicyAgent,
    RecurrentPolicyConfig,
    RecurrentPolicyModel,
    episodes,
)
from dfplan.benchmarks.recipes.budget import Budget
from dfplan.data.spec import Spec
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Relabeled, Replay, changes
from dfplan.data.windows import BatchSource, ReturnWindows, Windows
from dfplan.models import DecoderConfig, TransformerConfig
from dfplan.planning.dynamics import DynamicsConfig, DynamicsModel
from dfplan.planning.full_sequence import SequenceConfig
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe


def offline(
    agent: type[Any], config: type[OfflineConfig], learning_rate: float = 1e-3
) -> Callable[[Spec, Budget], Recipe]:
    """The recipe of an offline learner: three training seeds in one run, and a learning curve."""

    def recipe(spec: Spec, budget: Budget) -> Recipe:
        fields: dict[str, Any] = {"features": spec.features, **budget.model.get(agent.kind, {})}
        if config is GCIQLConfig:
            fields = {"goal_columns": spec.goal_columns, "seeds": (0,), **fields}  # it takes the longest
        model = config(spec.observation_dim, spec.action_dim, **fields)
        train = TrainConfig(
            steps=budget.steps.get(agent.kind, budget.steps["offline"]),
            batch_size=256,
            learning_rate=learning_rate,
            warmup_steps=0,
            weight_decay=0.0,
            gradient_clip=1e9,
            ema_decay=0.0,
            checkpoint_every=5_000,
            log_every=500,
        )
        return Recipe(agent, agent.learner_class, model, ActingConfig(), train, partial(_steps, model), budget.curve)

    return recipe


def _steps(model: OfflineConfig, data: Trajectories) -> BatchSource:
    """What an offline learner learns from: transitions, with goals in hindsight where it is given any."""
    if isinstance(model, GCIQLConfig):
        return Relabeled(data, model.seeds, model.goal_columns, model.gamma)
    return Replay(data, model.seeds, model.longest if isinstance(model, BCConfig) and model.goal_columns else 0)


bc = offline(BehaviorCloningAgent, BCConfig)
iql = offline(IQLAgent, IQLConfig)
cql = offline(CQLAgent, CQLConfig, learning_rate=3e-4)  # the penalty makes it unstable at the higher rate
td3_bc = offline(TD3BCAgent, TD3BCConfig)
awac = offline(AWACAgent, AWACConfig)
gciql = offline(GCIQLAgent, GCIQLConfig)


def distilled(spec: Spec, budget: Budget) -> Recipe:
    """A policy that imitates the planner of the default recipe. ValueError where no weights of one are shipped."""
    if not budget.planner:
        raise ValueError(
            "no planner is shipped for these data: `dfplan.agents.distillation` makes a policy of your own"
        )
    return distillation.distilled(from_pretrained(budget.planner), octaves=budget.octaves)


def diffuser(spec: Spec, budget: Budget) -> Recipe:
    """Diffuser: in tokens of several steps of observation and action."""
    model = _sequence(DiffuserConfig, "diffuser", spec, budget, observations="all", actions=True)
    return _full_sequence(DiffuserAgent, DiffuserModel, model, DiffuserAgentConfig, "diffuser", budget)


def decision_diffuser(spec: Spec, budget: Budget) -> Recipe:
    """Decision Diffuser: states alone."""
    gap = {"gap": min(DecisionDiffuserConfig.gap, (budget.sequence[1] - 1) * budget.sequence[0])}
    model = _sequence(DecisionDiffuserConfig, "decision-diffuser", spec, budget, gap)
    kinds = DecisionDiffuserAgent, DecisionDiffuserModel, model, DecisionDiffuserAgentConfig
    return _full_sequence(*kinds, "decision-diffuser", budget)


def _sequence(
    config: type[Any], name: str, spec: Spec, budget: Budget, fields: Mapping[str, Any] | None = None, **layout: Any
) -> Any:
    """What a full-sequence planner learns: to reach goals where there are any, else to gain rewards, else to go on."""
    stride, tokens, levels = budget.sequence
    columns = TokenLayout(spec.observation_dim, spec.action_dim, stride=stride, **layout)
    given = {"tokens": tokens, "levels": levels, "goal_columns": spec.goal_columns, "features": spec.features}
    given |= fields or {}
    given["towards"] = "goal" if spec.goal_columns else "return" if spec.rewards else "nothing"
    return config(columns, **{**given, **budget.model.get(name, {})})


def _full_sequence(
    agent: type[Any], learner: type[Any], model: SequenceConfig, acting: type[Any], name: str, budget: Budget
) -> Recipe:
    train = TrainConfig(steps=budget.steps.get(name, budget.steps["sequence"]), batch_size=32)
    how = acting(**budget.acting.get(name, {}))
    return Recipe(agent, learner, model, how, train, lambda data: ReturnWindows(data, model.steps + 1).sample)


def diffusion_policy(spec: Spec, budget: Budget, name: str = "diffusion-policy", **changes: Any) -> Recipe:
    """Diffusion Policy, given a goal where there are any; `changes` are fields of its model."""
    fields: dict[str, Any] = {"goal_within": max(spec.mixing, 1) if spec.goal_columns else 0, "features": spec.features}
    fields |= {"goal_columns": spec.goal_columns, **changes, **budget.model.get(name, {})}
    model = DiffusionPolicyConfig(spec.observation_dim, spec.action_dim, **fields)
    acting = PolicyConfig(**budget.acting.get(name, {}))
    train = TrainConfig(steps=budget.steps.get(name, budget.steps["sequence"]), batch_size=128)
    return Recipe(DiffusionPolicyAgent, DiffusionPolicyModel, model, acting, train, lambda data: windows(data, model))


def diffusion_policy_history(spec: Spec, budget: Budget) -> Recipe:
    """Diffusion Policy with a long history, by the transformer whose actions attend to the observations."""
    return diffusion_policy(spec, budget, "diffusion-policy-history", observed=16, decoder=DecoderConfig())


def gru(spec: Spec, budget: Budget) -> Recipe:
    """A recurrent policy, by imitation of whole episodes."""
    fields: dict[str, Any] = {"features": spec.features, **budget.model.get("gru", {})}
    model = RecurrentPolicyConfig(spec.observation_dim, spec.action_dim, **fields)
    train = TrainConfig(steps=budget.steps.get("gru", budget.steps["sequence"]), batch_size=32)
    return Recipe(RecurrentPolicyAgent, RecurrentPolicyModel, model, RecurrentActing(), train, episodes)


def veteran(spec: Spec, budget: Budget) -> Recipe:
    """Diffusion Veteran."""
    stride, tokens = budget.sparse
    networks = {
        "denoiser": TransformerConfig(depth=2, octaves=budget.octaves),
        "critic": TransformerConfig(width=64, depth=2, octaves=budget.octaves),
    }
    fields: dict[str, Any] = {"stride": stride, "tokens": tokens, **networks, **budget.model.get("dv", {})}
    model = VeteranModelConfig(spec.observation_dim, spec.action_dim, **fields)
    acting, train = VeteranConfig(**budget.acting.get("dv", {})), TrainConfig(steps=budget.steps["dv"])
    return Recipe(DiffusionVeteranAgent, Veteran, model, acting, train, lambda data: paths(data, model))


def dynamics(spec: Spec, budget: Budget) -> Recipe:
    """The learned dynamics of MPPI."""
    train = TrainConfig(steps=budget.steps["dynamics"], batch_size=512, learning_rate=2e-3, precision="32-true")
    model = DynamicsConfig(spec.observation_dim, spec.action_dim, spec.goal_columns, **budget.model.get("dynamics", {}))
    acting = MPPIConfig(spec.action_dim, **budget.acting.get("dynamics", {}))
    return Recipe(LearnedMPPIAgent, DynamicsModel, model, acting, train, changes)


def graph_search(spec: Spec, budget: Budget) -> Recipe:
    """A graph of recorded states, and the inverse dynamics that follows its ways."""
    fields = {"features": spec.features, **budget.model.get("graph-search", {})}
    model = GraphModelConfig(spec.observation_dim, spec.action_dim, spec.goal_columns, **fields)
    train = TrainConfig(steps=budget.steps["dynamics"], batch_size=128, learning_rate=2e-3, precision="32-true")
    acting = GraphSearchConfig(**budget.acting.get("graph-search", {}))
    how = GraphSearchAgent, GraphModel, model, acting, train
    return Recipe(*how, lambda data: Windows(data, model.longest_gap + 1).sample)
