"""The Diffusion Forcing agent: one set of weights as a policy and as a planner."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.planning_agent import PlanningAgent
from dfplan.arrays import Shape
from dfplan.planning.ask import Ask
from dfplan.planning.execution import Following, by_inverse_dynamics, diffused_action
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan import Plan
from dfplan.planning.planner import PlanConfig, Planner, make_plan, spread


class DiffusionForcingAgent(PlanningAgent):
    """Acts from one model in two ways, after `reset`: as a planner towards a goal or by costs, or, without any, as a policy
    that denoises only the next token.

    One agent may drive a batch of environments: then observations are (B, observation_dim) and every row has a plan of
    its own, remade every `replan_every` steps. How actions come from plans is said by `execution`. Two rules are no part of the
    learned model, and are off by default: `AgentConfig.speed` and `AgentConfig.arrival`.
    """

    kind = "trajectory_model"
    learner_class, learner_config_class, config_class = TrajectoryModel, TrajectoryModelConfig, AgentConfig
    answers = frozenset({"costs", "constraints"})
    learner: TrajectoryModel
    config: AgentConfig

    def __init__(
        self,
        model: TrajectoryModel,
        config: AgentConfig | None = None,
        card: dict[str, Any] | None = None,
        planner: Planner | None = None,
    ):
        layout, config = model.config.layout, config or AgentConfig()
        if config.execution == "diffused_actions" and not layout.actions:
            raise ValueError("this model's tokens hold no actions, so that it cannot execute diffused ones")
        if config.lookahead > model.config.longest_gap:
            raise ValueError(
                f"lookahead {config.lookahead} is beyond the inverse dynamics' longest gap {model.config.longest_gap}"
            )
        self.planner = planner or Planner()
        goal_dim = len(model.config.goal_columns)
        super().__init__(model, config, card, observation_dim=layout.observation_dim, goal_dim=goal_dim)

    def with_options(self, **changes: Any) -> Self:
        """An agent with the same weights and other fields of `AgentConfig` or, by the same names, of its `PlanConfig`."""
        own, plan = ([field.name for field in dataclasses.fields(part)] for part in (AgentConfig, PlanConfig))
        self._known_options(changes, own + plan)
        config = dataclasses.replace(self.config, **{k: v for k, v in changes.items() if k in own})
        plans = dataclasses.replace(config.plan, **{k: v for k, v in changes.items() if k in plan})
        return self._with(dataclasses.replace(config, plan=plans))

    def _with(self, config: Any) -> Self:
        return type(self)(self.learner, config, self.card, self.planner)

    @property
    def model(self) -> TrajectoryModel:
        """The weights."""
        return self.learner

    @property
    def execution(self) -> str:
        """How actions come from plans, in words for a table."""
        return self.config.execution.replace("_", " ").replace("inverse", "learned inverse")

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """Windows of `layout.steps(tokens)` steps: see `dfplan.planning.model.Batch`."""
        S, layout = self._steps + 1, self.learner.config.layout
        return {"observations": ("B", S, layout.observation_dim), "actions": ("B", S, layout.action_dim)}

    @property
    def _policy(self) -> bool:
        """Whether nothing is asked for, so that only the next token is drawn."""
        return self._goal is None and not self._ask.steered

    @property
    def _replan_every(self) -> int:
        """A policy plans one token, so it must decide again at the token's end."""
        return min(self.config.replan_every, self._stride) if self._policy else self.config.replan_every

    def _read_horizon(self, horizon: int) -> Tensor:
        return torch.tensor([-(-self._whole(horizon, "the horizon", 1, self._steps) // self._stride)])

    def _draw(self, observation: Tensor, ask: Ask, horizons: Tensor | None, record: bool) -> Plan:
        return make_plan(
            self.model,
            observation,
            ask,
            self.config.plan,
            self._generator,
            horizons=horizons,
            record=record,
            planner=self.planner,
        )

    def _possible(self, plan: Plan) -> Tensor | None:
        possible, found = torch.ones_like(plan.lengths) > 0, plan.scores
        if "plausibility" in found:
            possible = possible & (found["plausibility"] >= self.config.plan.margin)
        return possible & (found["violation"] <= 0) if "violation" in found else possible

    def _horizons_left(self, rows: Tensor) -> Tensor | None:
        """Plan lengths (R, H) up to a little beyond what is left of each row's plan; None for the config's own."""
        following, config = self._following, self.config
        if following is None or self._goal is None or config.plan.horizons == 1 or self.model.plausibility is None:
            return None
        longest = self.model.config.tokens - 1
        played = following.clock[rows].float() * config.speed / self._stride
        left = (following.lengths[rows] - played).ceil().long().clamp(min=1) + config.window
        left = torch.where(following.possible[rows], left, longest).clamp(max=longest)
        return torch.stack([spread(1, int(high), config.plan.horizons) for high in left])

    def _replan(self, following: Following, rows: Tensor, observation: Tensor, ask: Ask) -> None:
        """Rows of an episode under way that are within `arrival` of their goal stay there, the others are planned."""
        if ask.goal is not None and self.config.arrival and self.config.execution == "inverse_dynamics":
            columns = self.model.config.goal_columns
            near = (observation[:, list(columns)] - ask.goal).norm(dim=1) <= self.config.arrival
            near = near & ~following.begins[rows]
            following.put(rows[near], self.model.state_at(ask.goal[near], columns).unsqueeze(1), 1)
            rows, observation, ask = rows[~near], observation[~near], dataclasses.replace(ask, goal=ask.goal[~near])
        if len(rows):
            super()._replan(following, rows, observation, ask)

    def _execute(self, observation: Tensor, following: Following) -> Tensor:
        if self.config.execution == "diffused_actions":
            return diffused_action(following)
        config, to_end = self.config, self._goal is None
        return by_inverse_dynamics(self.model, observation, following, config.lookahead, config.speed, to_end)
