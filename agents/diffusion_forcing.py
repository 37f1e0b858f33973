"""The Diffusion Forcing agent: one set of weights as a policy and as a planner."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.base import named, require_finite, require_options
from dfplan.agents.planning_agent import PlanningAgent
from dfplan.arrays import Shape, read_whole
from dfplan.planning.ask import Ask
from dfplan.planning.confidence import has_left
from dfplan.planning.execution import Following, by_inverse_dynamics, diffused_action, padded
from dfplan.planning.in_turn import Exchange, in_turn
from dfplan.planning.jumps import Accepted
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.past import Past
from dfplan.planning.plan import Plan
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.planner import Planner, evenly_spaced, make_plan
from dfplan.planning.step_export import write_step
from dfplan.planning.stream import Alive, advance
from dfplan.planning.trials import mean_time


class DiffusionForcingAgent(PlanningAgent):
    """Acts from one model in two ways, after `reset`: as a planner towards a goal or by costs, or, without any, as a policy
    that denoises only the next token.

    One agent may drive a batch of environments: then observations are (B, observation_dim) and every row has a plan of
    its own, remade every `replan_every` steps. How actions come from plans is said by `execution`. Two rules are no part of the
    learned model, and are off by default: `AgentConfig.speed` and `AgentConfig.arrival`.
    """

    kind = "trajectory_model"
    learner_class, learner_config_class, config_class = TrajectoryModel, TrajectoryModelConfig, AgentConfig
    learner: TrajectoryModel
    config: AgentConfig

    def __init__(
        self,
        model: TrajectoryModel,
        config: AgentConfig | None = None,
        card: Any = None,
        planner: Planner | None = None,
    ):
        self.planner = planner or Planner()
        super().__init__(model, config, card)

    def _fit_learner(self) -> None:
        self.config.require_of(self.model)
        self.goal_dim, self.sees_unknown = len(self.model.config.goal_columns), self.model.config.missing > 0
        returns = ("return_",) if "return" in self.model.config.condition else ()
        self.answers = frozenset({"costs", "constraints", *returns})

    @named
    def with_options(self, **changes: Any) -> Self:
        """An agent with the same weights and other fields of `AgentConfig` or, by the same names, of its `PlanConfig`."""
        own, plan = ([field.name for field in dataclasses.fields(part)] for part in (AgentConfig, PlanConfig))
        require_options(changes, own + plan)
        config = replace(self.config, **{k: v for k, v in changes.items() if k in own})
        plans = replace(config.plan, **{k: v for k, v in changes.items() if k in plan})
        return self._with(replace(config, plan=plans))

    def _with(self, config: Any) -> Self:
        return type(self)(self.learner, config, self.card, self.planner).seeing(self.encoder)

    @named
    def export(self, path: str | Path) -> None:
        """Write one denoising step as an ONNX file, for planning without torch: see `dfplan.planning.step_export`.

        Raises ValueError where the packages of the extra `export` are missing, OSError where the file cannot be written.
        """
        write_step(self.model, self.config.plan, path)

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
        config = self.learner.config
        S, layout = config.layout.steps(config.tokens), config.layout
        parts: dict[str, Shape] = {
            "observations": ("B", S, layout.observation_dim),
            "actions": ("B", S, layout.action_dim),
        }
        if given > len(parts) or config.condition or self.learner.learns_returns:
            goals = len(config.goal_columns) if "goal" in config.condition else 0
            parts |= {"valid": ("B", config.tokens), "goals": ("B", goals), "paces": ("B",)}
        return parts

    @property
    def _replan_every(self) -> int:
        """Where nothing is asked for, only the next tokens are drawn, so that it must decide again at their end."""
        asked = self._goal is not None or self._ask.steered or self.model.config.condition
        every, drawn = self.config.replan_every, self.config.plan.policy_tokens
        return every if asked else min(every, self._stride * drawn)

    @property
    def _steps(self) -> int:
        return self.model.config.future * self._stride

    def _begin(self) -> None:
        super()._begin()
        self._past: Past | None = None
        self._accepted: Accepted | None = None
        self._alive: Alive | None = None
        self._spread: Tensor | None = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        super()._begin_rows(rows)
        index = torch.as_tensor(rows, device=self.device)
        if self._past is not None:
            self._past = self._past.forget(index)
        if self._accepted is not None:
            self._accepted.forget(index)

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        layout, steps = self.model.config.layout, self.model.config.history * self._stride
        if self._past is None:
            self._past = Past.start(len(batch), steps, layout.observation_dim, layout.action_dim, self.device)
        if self.config.jumps:
            batch = self._without_jumps(batch)
        action = super()._act(batch, goals)
        self._past = self._past.after(self._tensor(batch), self._tensor(action))
        return action

    def _without_jumps(self, batch: NDArray[Any]) -> NDArray[Any]:
        """The observations (B, observation_dim), NaN in those that changed faster than the data ever did."""
        observation = self._tensor(batch)
        if self._accepted is None:
            self._accepted = Accepted.start(observation)
        accepted = self._accepted.check(observation, self.config.jumps * self.model.largest)
        return np.where(accepted.cpu().numpy()[:, None], batch, np.nan)

    def _context(self, rows: Tensor) -> dict[str, Any]:
        """The lengths to try, and the past of these rows with the actions that are decided."""
        following, keep = self._following, self.config.keep * self._stride
        assert self._past is not None
        past = self._past.rows(rows)
        if self.config.remembered is not None:
            past = past.last(self.config.remembered)
        if keep and following is not None and following.actions is not None:
            held = following.lengths.clamp(max=self.model.config.acted or self.model.config.future) * self._stride
            past = replace(past, decided=following.actions_left(keep, held)[rows])
        return {"horizons": self._horizons_left(rows), "past": past}

    def _read_horizon(self, horizon: int) -> Tensor:
        return torch.tensor([-(-read_whole(horizon, "the horizon", 1, self._steps) // self._stride)])

    def _draw(
        self,
        observation: Tensor,
        ask: Ask,
        record: bool = False,
        horizons: Tensor | None = None,
        past: Past | None = None,
    ) -> Plan:
        if ask.goal is not None and self.config.in_turn:
            ask = replace(ask, goal=self._next_goal(ask.goal, observation[:, list(self.model.config.goal_columns)]))
        if ask.return_ is None and self.config.return_quantile is not None:
            ask = replace(ask, return_=self.model.return_at(self.config.return_quantile))
        exchange = None
        if ask.goal is not None and self.model.config.alike:
            if ask.steered:
                raise ValueError("a model of things that are alike is asked for goals without costs and constraints")
            exchange = Exchange(self.model.config, observation, ask.goal)
            observation, ask = exchange.observation, replace(ask, goal=exchange.goal)
        options: dict[str, Any] = {"record": record, "horizons": horizons, "past": past, "planner": self._with_trials()}
        plan = make_plan(self.model, observation, ask, self.config.plan, self._generator, **options)
        return plan if exchange is None else exchange.back(plan)

    def _next_goal(self, goal: Tensor, present: Tensor) -> Tensor:
        """Of goals of several things what is asked for now."""
        model, how = self.model, self.config
        if model.order is not None:
            return model.order.next_goal(goal, present, how.in_turn)
        return in_turn(goal, present, model.config.goal_groups, how.in_turn, how.lowest_first, how.clearance)

    def _with_trials(self) -> Planner:
        """The planner, which follows candidates as this agent does, if trials are asked for."""
        plan = self.config.plan
        if not plan.trials:
            return self.planner
        how: dict[str, Any] = {"lookahead": self.config.lookahead, "speed": self.config.speed}
        time = partial(mean_time, config=plan, generator=self._generator, **how)
        return replace(self.planner, scores={**self.planner.scores, "time": time})

    def _possible(self, plan: Plan) -> Tensor | None:
        possible, found = torch.ones_like(plan.lengths) > 0, plan.scores
        if "plausibility" in found:
            possible = possible & (found["plausibility"] >= self.config.plan.margin)
        return possible & (found["violation"] <= 0) if "violation" in found else possible

    def _horizons_left(self, rows: Tensor) -> Tensor | None:
        """Plan lengths (R, H) up to a little beyond what is left of each row's plan; None for the config's own."""
        following, config, model = self._following, self.config, self.model
        of_one_length = config.plan.horizons == 1 or model.plausibility is None or "goal" in model.config.condition
        if following is None or self._goal is None or of_one_length:
            return None
        longest = model.config.future
        played = following.clock[rows].float() * config.speed / self._stride
        left = (following.lengths[rows] - played).ceil().long().clamp(min=1) + config.window
        left = torch.where(following.possible[rows], left, longest).clamp(max=longest)
        return torch.stack([evenly_spaced(1, int(high), config.plan.horizons) for high in left])

    def _due(self, following: Following, observation: Tensor, goal: Tensor | None) -> Tensor:
        """Where plans live they move on, and only those that are lost are due. Else those that the world has left are."""
        if not self.config.streaming or goal is None:
            due = self._seeing(following, super()._due(following, observation, goal), observation)
            return due if self._spread is None else torch.cat([due, self._left(following, observation)]).unique()
        if self._alive is None:
            self._alive = Alive.start(len(goal), self.model)
        near, alive, how = self._near(observation, goal), self._alive, self.config
        resting = (alive.left == 0) & near & (alive.goal == goal).all(1) & (following.clock < how.replan_every)
        lives = alive.lives(goal) & ~near & ~following.begins
        due, rows = following.begins | ~(lives | resting), lives.nonzero().squeeze(1)
        if len(rows):
            ask, played = replace(self._ask, goal=goal[rows]), how.speed / self._stride
            with torch.autocast(self.device.type, torch.bfloat16):
                plan, left = advance(
                    self.model,
                    alive,
                    rows,
                    observation[rows],
                    ask,
                    how.plan,
                    self._generator,
                    played,
                    self.planner.scores,
                )
            require_finite("plan", plan.observations)
            alive.put(rows, plan, goal[rows], left)
            following.put(rows, self._path(plan), plan.lengths, plan.actions, self._possible(plan))
            due[rows] = (plan.scores["plausibility"] < how.plan.margin - how.ends_below) & (
                alive.age[rows] >= self._stride
            )
        return due.nonzero().squeeze(1)

    def _left(self, following: Following, observation: Tensor) -> Tensor:
        """Rows (R,) that are farther from what they follow than its spread allows."""
        columns, how = list(self.model.config.judged), self.config
        assert self._spread is not None
        away = (self._stride, how.doubt, how.doubt_from)
        return has_left(observation[:, columns], following.path[..., columns], self._spread, *away).nonzero().squeeze(1)

    def _near(self, observation: Tensor, goal: Tensor) -> Tensor:
        """(B,) bool: within `arrival` of the goal, where rows stay."""
        if not self.config.arrival or self.config.execution != "inverse_dynamics":
            return torch.zeros(len(goal), dtype=torch.bool, device=goal.device)
        return (observation[:, list(self.model.config.goal_columns)] - goal).norm(dim=1) <= self.config.arrival

    def _seeing(self, following: Following, rows: Tensor, observation: Tensor) -> Tensor:
        """Of rows (R,) that are due those that see something: the others follow their plans on, as long as these last."""
        if not self.sees_unknown:
            return rows
        config = self.model.config
        lasts = following.clock[rows] < (config.acted or config.future) * self._stride
        waits = observation[rows].isnan().any(1) & lasts & ~following.begins[rows]
        return rows[~waits]

    def _replan(self, following: Following, rows: Tensor, observation: Tensor, ask: Ask) -> None:
        """Rows of an episode under way that are within `arrival` of their goal stay there, the others are planned."""
        if ask.goal is not None:
            near = self._near(observation, ask.goal) & ~following.begins[rows]
            if self._spread is not None:
                self._spread[rows] = 0.0
            rest = self.model.state_at(ask.goal[near], self.model.config.goal_columns).unsqueeze(1)
            following.put(rows[near], rest, 1)
            if self._alive is not None:
                self._alive.goal[rows] = ask.goal
                self._alive.end(rows)
            rows, observation, ask = rows[~near], observation[~near], replace(ask, goal=ask.goal[~near])
        if len(rows):
            super()._replan(following, rows, observation, ask)
            plan = self.last_plan
            if self.config.doubt and ask.goal is not None and plan is not None and plan.spread is not None:
                if self._spread is None:
                    self._spread = plan.spread.new_zeros(len(following.clock), self.model.config.future + 1)
                self._spread[rows] = padded(plan.spread.unsqueeze(-1), self._spread.shape[1])[..., 0]
            if self._alive is not None and ask.goal is not None and self.last_plan is not None:
                self._alive.put(rows, self.last_plan, ask.goal)

    def _execute(self, observation: Tensor, following: Following) -> Tensor:
        if self.config.execution == "diffused_actions":
            return diffused_action(following)
        config, to_end = self.config, self._goal is None
        return by_inverse_dynamics(self.model, observation, following, config.lookahead, config.speed, to_end)
