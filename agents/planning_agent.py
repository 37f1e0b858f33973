"""What agents that follow plans have in common: when they plan, for which rows of a batch, and how a plan is followed."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfplan.agents.base import LearningAgent, named, require_finite, undisturbed
from dfplan.planning.ask import Ask, Cost
from dfplan.planning.execution import Following, each_step
from dfplan.planning.plan import Plan


class PlanningAgent(LearningAgent):
    """An agent that makes plans and follows them; every row of a batch has a plan and a clock of its own.

    A subclass draws plans (`_draw`) and turns the followed ones into actions (`_execute`); both compute in recorded units. How
    often it plans is `_replan_every`. Where the learner's config has no `layout`, it says its `_stride`.
    """

    last_plan: Plan | None
    """The plans that were made last, of the rows that were due then."""

    @named
    def plan(
        self,
        observation: ArrayLike,
        goal: ArrayLike | None = None,
        horizon: int | None = None,
        *,
        ask: Ask | None = None,
        guide: Cost | None = None,
        record: bool = True,
    ) -> Plan:
        """Plan from one observation (observation_dim,) or a batch, without acting; what the agent follows stays.

        It draws random numbers from the agent's generator. The model gets no history.

        goal, ask: as of `reset`; None is that of the last reset. horizon: plan length in environment steps, rounded up to
        tokens; None lets the planner choose. guide: one more cost to ask for. record: keep the plan at every row of denoising
        in `history`. Raises ValueError for what does not fit the agent; CostError, a ValueError, for a cost that is none.
        """
        batch = np.atleast_2d(self._read_observation(observation))
        given = self._read_ask(goal, ask)
        asked = self._ask if ask is None else given
        if guide is not None:
            asked = self._answered(replace(asked, costs=(*asked.costs, guide)))
        goals = self._goals(self._goal if given.goal is None else given.goal, len(batch))
        horizons = None if horizon is None else self._read_horizon(horizon).expand(len(batch), 1)
        with undisturbed(self.device):
            asked = replace(asked, goal=self._tensor(goals))
            return self._make_plan(self._tensor(batch), asked, record=record, horizons=horizons)

    def followed(self, row: int = 0) -> NDArray[Any] | None:
        """The plan that is followed in a row of the batch, from where it was made: an observation for each step up to its end,
        (S + 1, observation_dim) in recorded units; None before there is one."""
        following = self._following
        if following is None or following.begins[row]:
            return None
        path: NDArray[Any] = following.path[row, : int(following.lengths[row]) * self._stride + 1].cpu().numpy()
        return path

    @property
    def _replan_every(self) -> int:
        """Environment steps between plans; 0: a plan is made once an episode."""
        return int(self.config.replan_every)

    @property
    def _stride(self) -> int:
        """Environment steps between two tokens of a plan."""
        return int(self.learner.config.layout.stride)

    @property
    def _steps(self) -> int:
        """Environment steps of the longest plan."""
        return (int(self.learner.config.tokens) - 1) * self._stride

    @abstractmethod
    def _draw(self, observation: Tensor, ask: Ask, record: bool = False, horizons: Tensor | None = None) -> Plan:
        """A plan for each observation (B, observation_dim) of what is asked for, its goal (B, G) or None.

        `horizons` (B, H): lengths to try, in tokens.
        """

    @abstractmethod
    def _execute(self, observation: Tensor, following: Following) -> Tensor:
        """Actions (B, action_dim) from observations (B, observation_dim) along the followed plans."""

    def _read_horizon(self, horizon: int) -> Tensor:
        """A plan length in environment steps as tokens (1,). ValueError for an agent whose plans have one length."""
        raise ValueError(f"all plans of this agent are {self._steps} steps long: leave the horizon out")

    def _context(self, rows: Tensor) -> dict[str, Any]:
        """What else `_draw` is given for these rows (R,) of the batch that acts."""
        return {}

    def _path(self, plan: Plan) -> Tensor:
        """The plan laid out, (B, S + 1, observation_dim), as `_execute` finds it in what is followed."""
        return each_step(plan.observations, self._stride, self._steps)

    def _possible(self, plan: Plan) -> Tensor | None:
        """Which of the plans are plausible, (B,) bool; None where that is not known."""
        return None

    def _begin(self) -> None:
        self._following: Following | None = None
        self.last_plan = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        if self._following is not None:
            self._following.begins[rows] = True
            self._following.possible[rows] = False

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        observation, goal = self._tensor(batch), self._tensor(goals)
        if self._following is None:
            self._following = Following.start(len(batch), self._steps, batch.shape[1], self.device)
        due = self._due(self._following, observation, goal)
        if len(due):
            ask = replace(self._ask, goal=None if goal is None else goal[due])
            self._replan(self._following, due, observation[due], ask)
        action = self._execute(observation, self._following).clamp(self.learner.action_low, self.learner.action_high)
        self._following.clock += 1
        return action.cpu().numpy()

    def _due(self, following: Following, observation: Tensor, goal: Tensor | None) -> Tensor:
        """Rows (R,) of the batch that need a plan now."""
        return following.due(self._replan_every)

    def _replan(self, following: Following, rows: Tensor, observation: Tensor, ask: Ask) -> None:
        """Plan for these rows (R,), from observations (R, observation_dim), and follow the new plans."""
        self.last_plan = plan = self._make_plan(observation, ask, **self._context(rows))
        following.put(rows, self._path(plan), plan.lengths, plan.actions, self._possible(plan))

    def _make_plan(self, observation: Tensor, ask: Ask, **context: Any) -> Plan:
        # bf16 products are several times faster where the hardware has them, and plans do not suffer.
        with torch.autocast(self.device.type, torch.bfloat16):
            plan = self._draw(observation, ask, **context)
        require_finite("plan", plan.observations, *(() if plan.actions is None else (plan.actions,)))
        return plan
