"""The Diffusion Forcing agent: one set of weights as a policy and as a planner."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.base import LearningAgent
from dfplan.agents.loading import pretrained_path
from dfplan.config_json import config_from_json, config_to_json
from dfplan.diffusion.guidance import Guide
from dfplan.planning.execution import Following, each_step, padded
from dfplan.planning.model import Batch, TrajectoryModel
from dfplan.planning.planner import Plan, PlanConfig, goal_observation, make_plan, spread
from dfplan.training.weights_file import naming


class DiffusionForcingAgent(LearningAgent):
    """Acts from one model in two ways, after `reset`: as a planner towards ``goal``, or, without a goal, as a policy
    that denoises only the next token.

    One agent may drive a batch of environments: then observations are (B, observation_dim) and every row has a plan of
    its own, remade every ``replan_every`` steps. Nothing in it is written by hand for a task; how actions come from plans is
    said by `execution`.
    """

    learner: TrajectoryModel
    config: AgentConfig

    def __init__(self, model: TrajectoryModel, config: AgentConfig | None = None, card: dict[str, Any] | None = None):
        layout, config = model.config.layout, config or AgentConfig()
        if config.execution == "diffused_actions" and not layout.actions:
            raise ValueError("this model's tokens hold no actions, so that it cannot execute diffused ones")
        if config.lookahead > model.config.longest_gap:
            raise ValueError(
                f"lookahead {config.lookahead} is beyond the inverse dynamics' longest gap {model.config.longest_gap}"
            )
        goal_dim = len(model.config.goal_columns)
        super().__init__(model, config, card, observation_dim=layout.observation_dim, goal_dim=goal_dim)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The agent of a weights file, acting as its header says. Raises CheckpointError for a file that is not one."""
        model, card = TrajectoryModel.load(path)
        with naming(path):
            config = config_from_json(AgentConfig, card["agent"], "card.agent") if "agent" in card else None
            return cls(model, config, card)

    @classmethod
    def from_pretrained(cls, name: str) -> Self:
        """The agent of weights that come with the package, such as 'maze2d-large' or 'maze2d-large-paper'.

        Raises ValueError for a name that is not among them.
        """
        return cls.load(pretrained_path(name, "trajectory_model"))

    def save(self, path: str | Path) -> None:
        """Write weights, config and card as one file that `load` reads."""
        self.model.save(path, self.card | {"agent": config_to_json(self.config)})

    def with_options(self, **changes: Any) -> Self:
        """An agent with the same weights and other fields of `AgentConfig` or, by the same names, of its `PlanConfig`."""
        own, plan = ([field.name for field in dataclasses.fields(part)] for part in (AgentConfig, PlanConfig))
        self._known_options(changes, own + plan)
        config = dataclasses.replace(self.config, **{k: v for k, v in changes.items() if k in own})
        plans = dataclasses.replace(config.plan, **{k: v for k, v in changes.items() if k in plan})
        return self._with(dataclasses.replace(config, plan=plans))

    @property
    def model(self) -> TrajectoryModel:
        """The weights."""
        return self.learner

    @property
    def execution(self) -> str:
        """How actions come from plans, in words for a table."""
        return self.config.execution.replace("_", " ").replace("inverse", "learned inverse")

    def plan(
        self,
        observation: ArrayLike,
        goal: ArrayLike | None = None,
        horizon: int | None = None,
        *,
        guide: Guide | None = None,
        record: bool = True,
    ) -> Plan:
        """Plan from one observation (observation_dim,) or a batch, without acting; the agent's own plan stays.

        goal: as of `reset`; None is the goal of the last reset. horizon: plan length in environment steps, rounded up to
        tokens; None lets the planner choose. guide: a further cost (B,) of observations (B, T, observation_dim) in recorded
        units, of weight 1 beside ``scale`` times the goal's; GuideError, a ValueError, for one that returns anything else.
        record: keep the plan at every row of denoising in ``history``.
        """
        batch = np.atleast_2d(self._read_observation(observation))
        goals = self._goals(self._goal if goal is None else self._read_goal(goal), len(batch))
        horizons = None
        if horizon is not None:
            stride = self.model.config.layout.stride
            horizon = self._whole(horizon, "the horizon", 1, (self.model.config.tokens - 1) * stride)
            tokens = -(-horizon // stride)
            horizons = torch.full((len(batch), 1), tokens)
        with self._undisturbed():
            return self._make_plan(self._tensor(batch), self._tensor(goals), horizons, guide, record)

    def update(self, batch: Batch | tuple[ArrayLike, ArrayLike]) -> dict[str, float]:
        """One AdamW step on windows of observations (B, S, observation_dim) and actions (B, S, action_dim): the losses.

        For small experiments and data that keep coming; `dfplan.training.loop.train` is the trainer that made shipped weights
        (schedule, moving average, checkpoints). S is ``layout.steps(tokens)``.
        """
        layout = self.model.config.layout
        S = layout.steps(self.model.config.tokens)
        shapes = {"observations": ("B", S, layout.observation_dim), "actions": ("B", S, layout.action_dim)}
        return self._learn(self._read_batch(batch, shapes))

    @property
    def _replan_every(self) -> int:
        """A policy plans one token, so it must decide again at the token's end."""
        if self._goal is None:
            return min(self.config.replan_every, self.model.config.layout.stride)
        return self.config.replan_every

    def _begin(self) -> None:
        self._following: Following | None = None
        self.last_plan: Plan | None = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        if self._following is not None:
            self._following.clock[rows] = self._replan_every
            self._following.possible[rows] = False

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        observation, goal = self._tensor(batch), self._tensor(goals)
        if self._following is None:
            self._follow(observation, goal, torch.arange(len(batch), device=self.device), anew=True)
        assert self._following is not None
        due = (self._following.clock >= self._replan_every).nonzero().squeeze(1)
        if len(due):
            due = self._stay_at_goal(observation, goal, due)
        if len(due):
            self._follow(observation[due], None if goal is None else goal[due], due, anew=False)
        action = self._execute(observation)
        self._following.clock += 1
        return action.cpu().numpy()

    def _make_plan(
        self, batch: Tensor, goal: Tensor | None, horizons: Tensor | None, guide: Guide | None = None, record: bool = False
    ) -> Plan:
        # bf16 products are several times faster where the hardware has them, and plans do not suffer.
        with torch.autocast(self.device.type, torch.bfloat16):
            plan = make_plan(
                self.model, batch, goal, self.config.plan, self._generator, horizons=horizons, guide=guide, record=record
            )
        self._finite("plan", plan.observations, *(() if plan.actions is None else (plan.actions,)))
        return plan

    def _follow(self, batch: Tensor, goal: Tensor | None, rows: Tensor, *, anew: bool) -> None:
        """Plan for these rows and start their clocks."""
        plan = self._make_plan(batch, goal, None if anew else self._horizons_left(rows))
        self.last_plan = plan
        steps = (self.model.config.tokens - 1) * self.model.config.layout.stride
        path = self.model.observation.normalize(each_step(plan.observations, self.model.config.layout.stride, steps))
        possible = plan.odds >= self.config.plan.margin
        if anew:
            actions = None if plan.actions is None else padded(plan.actions, steps)
            clock = torch.zeros(len(batch), dtype=torch.float32, device=self.device)
            self._following = Following(path, actions, plan.lengths, possible, clock)
            return
        following = self._following
        assert following is not None
        following.path[rows] = path
        if following.actions is not None and plan.actions is not None:
            following.actions[rows] = padded(plan.actions, steps)
        following.lengths[rows] = plan.lengths
        following.possible[rows] = possible
        following.clock[rows] = 0

    def _stay_at_goal(self, batch: Tensor, goal: Tensor | None, due: Tensor) -> Tensor:
        """Give those of the due rows that have arrived a plan that stays there; the others are still due."""
        following = self._following
        assert following is not None
        if goal is None or self.config.execution != "inverse_dynamics" or not self.config.arrival:
            return due
        distance = (batch[:, list(self.model.config.goal_columns)] - goal).norm(dim=1)
        near = distance[due] <= self.config.arrival
        there = due[near]
        following.path[there] = goal_observation(self.model, goal[there]).unsqueeze(1)
        following.lengths[there] = 1
        following.possible[there] = True
        following.clock[there] = 0
        return due[~near]

    def _horizons_left(self, rows: Tensor) -> Tensor | None:
        """Plan lengths (len(rows), H) up to a little beyond what is left of each row's plan; None for the config's own."""
        following, config = self._following, self.config
        assert following is not None
        if self._goal is None or config.plan.horizons == 1:
            return None
        longest = self.model.config.tokens - 1
        played = following.clock[rows] * config.speed / self.model.config.layout.stride
        left = (following.lengths[rows] - played).ceil().long().clamp(min=1) + config.window
        left = torch.where(following.possible[rows], left, longest).clamp(max=longest)
        return torch.stack([spread(1, int(high), config.plan.horizons) for high in left])

    def _execute(self, batch: Tensor) -> Tensor:
        following = self._following
        assert following is not None
        row = torch.arange(len(batch), device=self.device)
        if self.config.execution == "diffused_actions":
            assert following.actions is not None
            now = following.clock.long().clamp(max=following.actions.shape[1] - 1)
            action = following.actions[row, now]
        else:
            played = following.clock * self.config.speed
            ahead = played + self.config.lookahead * self.config.speed
            ahead = ahead.clamp(max=following.path.shape[1] - 1)
            gap = torch.full_like(ahead, self.config.lookahead)
            if self._goal is None:
                # A policy's one token is not a place to rest: wish for its end, in as many steps as are left to it.
                ahead = torch.minimum(ahead, following.lengths * self.model.config.layout.stride)
                gap = ((ahead - played) / self.config.speed).clamp(min=1)
            low = ahead.floor().long().clamp(max=following.path.shape[1] - 2)
            share = (ahead - low).unsqueeze(1)
            wish = (1 - share) * following.path[row, low] + share * following.path[row, low + 1]
            action = self.model.inverse(self.model.observation.normalize(batch), wish, gap)
            action = self.model.action.denormalize(action)
        return action.clamp(self.model.action_low, self.model.action_high)
