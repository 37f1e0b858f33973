"""Every kind of agent, small and untrained, for tests of what all of them must do."""

import numpy as np
import torch
from sequence_toy import NETWORK, TOKENS, batches_of, drives, layout

from dfplan.agents import distillation
from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.decision_diffuser import DecisionDiffuserAgent, DecisionDiffuserConfig, DecisionDiffuserModel
from dfplan.agents.diffuser import DiffuserAgent, DiffuserAgentConfig, DiffuserConfig, DiffuserModel
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.diffusion_policy import (
    DiffusionPolicyAgent,
    DiffusionPolicyConfig,
    DiffusionPolicyModel,
    PolicyConfig,
)
from dfplan.agents.diffusion_veteran import DiffusionVeteranAgent, Veteran, VeteranConfig, VeteranModelConfig
from dfplan.agents.graph_search import GraphModel, GraphModelConfig, GraphSearchAgent, GraphSearchConfig
from dfplan.agents.loading import from_pretrained
from dfplan.agents.mppi import GoalCost, LearnedMPPIAgent, MPPIAgent, MPPIConfig
from dfplan.agents.offline import awac, bc, cql, gciql, iql, td3_bc
from dfplan.agents.recurrent_policy import RecurrentPolicyAgent, RecurrentPolicyConfig, RecurrentPolicyModel
from dfplan.data.tokens import TokenLayout
from dfplan.models import TransformerConfig, UNetConfig
from dfplan.planning.dynamics import DynamicsConfig, DynamicsModel
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan_config import PlanConfig

OBSERVATION = np.array([0.1, -0.2, 0.3, 0.1])
GOAL = np.array([0.6, 0.4])
SMALL = TransformerConfig(width=16, depth=1, heads=2, octaves=2)


def ready(learner):
    """Weights that are not zero, and the statistics of some data."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.normal_(std=0.1)
    learner.fit_statistics(drives(episodes=20))
    return learner


def trajectory_model(**options):
    """Replans, and so draws, every third step; every guide, future and noise of sampling is in use."""
    config = TrajectoryModelConfig(
        TokenLayout(4, 2, stride=2, actions=True), (0, 1), tokens=5, levels=8, model=SMALL, longest_gap=4
    )
    guided = {"goal": "guided", "scale": 0.1, "futures": 2, "future_steps": 2}
    plan = PlanConfig(horizons=3, samples=2, steps=2, eta=1.0, margin=-99.0, **guided)
    return DiffusionForcingAgent(
        ready(TrajectoryModel(config)), AgentConfig(plan, lookahead=2, replan_every=3, arrival=0.0)
    ).with_options(**options)


def diffuser(towards="goal", **options):
    config = DiffuserConfig(
        layout(actions=True), tokens=TOKENS, towards=towards, goal_columns=(0, 1), levels=8, network=NETWORK
    )
    acting = {"steps": 2, "eta": 1.0, "replan_every": 3, "execution": "pd", "velocity_columns": (2, 3)}
    return DiffuserAgent(ready(DiffuserModel(config)), DiffuserAgentConfig(**acting | options))


def decision_diffuser():
    config = DecisionDiffuserConfig(
        layout(actions=False), tokens=TOKENS, goal_columns=(0, 1), levels=8, network=NETWORK, gap=2
    )
    return DecisionDiffuserAgent(ready(DecisionDiffuserModel(config))).with_options(steps=2, eta=1.0, replan_every=3)


def diffusion_veteran():
    learner = Veteran(
        VeteranModelConfig(4, 2, (0, 1), tokens=5, stride=2, denoiser=SMALL, critic=SMALL, levels=8, inverse_levels=3)
    )
    return DiffusionVeteranAgent(ready(learner), VeteranConfig(candidates=4, steps=2, replan_every=3))


def diffusion_policy():
    network = UNetConfig(width=8, multiples=(1, 2), octaves=0, film=True)
    config = DiffusionPolicyConfig(4, 2, (0, 1), 5, predicted=4, network=network, levels=8)
    return DiffusionPolicyAgent(ready(DiffusionPolicyModel(config)), PolicyConfig(executed=3, steps=2, eta=1.0))


def graph_search():
    learner = GraphModel(GraphModelConfig(4, 2, (0, 1), clusters=40, neighbors=4, longest=20, longest_gap=4))
    return GraphSearchAgent(ready(learner), GraphSearchConfig(replan_every=3, lookahead=2))


def recurrent_policy():
    return RecurrentPolicyAgent(ready(RecurrentPolicyModel(RecurrentPolicyConfig(4, 2, width=8, depth=1))))


def point(states, actions):
    """A point that goes where it is sent, for MPPI without learning."""
    here = states[:, None, :2] + np.cumsum(actions, axis=1) / 10
    return np.concatenate([here, actions], axis=-1)


def offline(agent, config):
    return agent(ready(agent.learner_class(config)))


EVERY = {
    "trajectory_model": trajectory_model,
    "trajectory_model, known goal": lambda: trajectory_model(goal="known", scale=0.0, futures=0),
    "trajectory_model, diffused actions": lambda: trajectory_model(execution="diffused_actions"),
    "diffuser": diffuser,
    "diffuser, diffused actions": lambda: diffuser(execution="diffused_actions"),
    "diffuser, to a return": lambda: diffuser(towards="return"),
    "decision_diffuser": decision_diffuser,
    "diffusion_veteran": diffusion_veteran,
    "diffusion_policy": diffusion_policy,
    "recurrent_policy": recurrent_policy,
    "graph_search": graph_search,
    "mppi": lambda: MPPIAgent(point, GoalCost(), MPPIConfig(2, samples=8, controls=3, hold=2)),
    "dynamics": lambda: LearnedMPPIAgent(
        ready(DynamicsModel(DynamicsConfig(4, 2, width=8))), MPPIConfig(2, samples=8, controls=3, hold=2)
    ),
    "bc": lambda: offline(bc.BehaviorCloningAgent, bc.BCConfig(4, 2, hidden=(8, 8))),
    "td3-bc": lambda: offline(td3_bc.TD3BCAgent, td3_bc.TD3BCConfig(4, 2, hidden=(8, 8))),
    "iql": lambda: offline(iql.IQLAgent, iql.IQLConfig(4, 2, hidden=(8, 8))),
    "awac": lambda: offline(awac.AWACAgent, awac.AWACConfig(4, 2, hidden=(8, 8))),
    "cql": lambda: offline(cql.CQLAgent, cql.CQLConfig(4, 2, hidden=(8, 8), actions=2, states=2)),
    "distilled": lambda: offline(
        distillation.DistilledAgent, distillation.DistilledConfig(4, 2, hidden=(8, 8), goal_columns=(0, 1))
    ),
    "gciql": lambda: offline(gciql.GCIQLAgent, gciql.GCIQLConfig(4, 2, hidden=(8, 8), goal_columns=(0, 1))),
    "stable_baselines3, PPO": lambda: from_pretrained("maze2d-umaze-ppo"),
    "stable_baselines3, SAC": lambda: from_pretrained("maze2d-umaze-sac"),
    "stable_baselines3, TD3": lambda: from_pretrained("maze2d-umaze-td3"),
    "stable_baselines3, HER": lambda: from_pretrained("maze2d-umaze-her"),
}
"""What builds an agent of each kind, and of each way to act that a kind has."""


def goal_of(agent):
    """A goal that the agent can go to."""
    learner = getattr(agent, "learner", None)
    return ((learner.goal_low + learner.goal_high) / 2).numpy() if hasattr(learner, "goal_low") else GOAL


def batch_for(agent):
    """A training batch of the agent's own data; None where it has no `update`."""
    if not hasattr(agent, "update"):
        return None
    return tuple(
        np.asarray(part) for part in batches_of(agent.learner, drives(episodes=20))(np.random.default_rng(0), 4)
    )
