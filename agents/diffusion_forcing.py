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
from dfplan.agents.following import Following, each_step, padded
from dfplan.agents.loading import pretrained_path
from dfplan.checkpoint import CheckpointError
from dfplan.guidance import Guide
from dfplan.planner import Plan, PlanConfig, goal_observation, make_plan, spread
from dfplan.trajectory_model import Batch, TrajectoryModel


class DiffusionForcingAgent:
    """Acts from one model in two ways, after `reset`: as a planner towards ``goal``, or, without a goal, as a policy
    that denoises only the next token.

    One agent may drive a batch of environments: then observations are (B, observation_dim) and every row has a plan of
    its own, remade every ``replan_every`` steps. Nothing in it is written by hand for a task; how actions come from plans is
    said by `execution`.
    """

    def __init__(self, model: TrajectoryModel, config: AgentConfig | None = None, card: dict[str, Any] | None = None):
        self.model = model.eval()
        self.config = config or AgentConfig()
        self.card = card or {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._generator = torch.Generator(self._device).manual_seed(0)
        if self.config.execution == "diffused_actions" and not model.config.layout.actions:
            raise ValueError("this model's tokens hold no actions, so that it cannot execute diffused ones")
        if self.config.lookahead > model.config.longest_gap:
            raise ValueError(
                f"lookahead {self.config.lookahead} is beyond the inverse dynamics' longest gap {model.config.longest_gap}"
            )
        self.reset()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The agent of a weights file, acting as its header says. Raises CheckpointError for a file that is not one."""
        model, card = TrajectoryModel.load(path)
        try:
            config = AgentConfig.from_header(card["agent"]) if "agent" in card else None
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} describes an agent that this version cannot build: {error}") from error
        return cls(model, config, card)

    @classmethod
    def from_pretrained(cls, name: str) -> Self:
        """The agent of weights that come with the package, such as 'maze2d-large' or 'maze2d-large-paper'.

        Raises ValueError for a name that is not among them.
        """
        return cls.load(pretrained_path(name, "trajectory_model"))

    def save(self, path: str | Path) -> None:
        """Write weights, config and card as one file that `load` reads."""
        self.model.save(path, self.card | {"agent": self.config.to_header()})

    def with_options(self, **changes: Any) -> Self:
        """An agent with the same weights and other fields of `AgentConfig` or, by the same names, of its `PlanConfig`."""
        plan_fields = {f.name for f in dataclasses.fields(PlanConfig)}
        plan = dataclasses.replace(self.config.plan, **{k: v for k, v in changes.items() if k in plan_fields})
        own = {k: v for k, v in changes.items() if k not in plan_fields}
        try:
            config = dataclasses.replace(self.config, **({"plan": plan} | own))
        except TypeError as error:
            raise ValueError(f"unknown option among {sorted(changes)}: {error}") from error
        return type(self)(self.model, config, self.card)

    @property
    def execution(self) -> str:
        """How actions come from plans, in words for a table."""
        return self.config.execution.replace("_", " ").replace("inverse", "learned inverse")

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.model.parameters())

    def to(self, device: str | torch.device) -> Self:
        """Move the weights, which agents made by `with_options` share, and forget goal and plan; returns the agent."""
        self.model.to(device)
        self.reset()
        return self

    def reset(self, goal: ArrayLike | None = None, seed: int | None = None) -> None:
        """Forget the plan; take a goal (G,) for all rows or (B, G) for each, in recorded units, or None for no goal.

        ``seed`` starts the agent's own randomness anew: same seed and observations, same actions.
        """
        G = len(self.model.config.goal_columns)
        if goal is not None:
            goal = _finite(goal, "the goal").to(self._device)
            if goal.ndim not in (1, 2) or goal.shape[-1] != G:
                raise ValueError(f"the goal must be ({G},) or (batch, {G}), got {tuple(goal.shape)}")
        self._goal = goal
        if seed is not None or self._generator.device.type != self._device.type:
            self._generator = torch.Generator(self._device).manual_seed(0 if seed is None else seed)
        self._following: Following | None = None
        self.last_plan: Plan | None = None

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """The action (action_dim,) for an observation (observation_dim,), or (B, action_dim) for (B, observation_dim)."""
        given = self._observations(observation)
        batch = given if given.ndim == 2 else given.unsqueeze(0)
        if self._following is None or len(self._following.clock) != len(batch):
            self._follow(batch, torch.arange(len(batch), device=self._device), anew=True)
        assert self._following is not None
        due = (self._following.clock >= self._replan_every).nonzero().squeeze(1)
        if len(due):
            due = self._stay_at_goal(batch, due)
        if len(due):
            self._follow(batch[due], due, anew=False)
        action = self._execute(batch)
        self._following.clock += 1
        return (action if given.ndim == 2 else action[0]).cpu().numpy()

    def forget(self, rows: ArrayLike, goal: ArrayLike | None = None) -> None:
        """New episodes began in these rows of the batch: plan them anew at the next `act`, to new goals (len(rows), G)."""
        index = torch.as_tensor(rows, device=self._device).reshape(-1)
        batch = None if self._following is None else len(self._following.clock)
        if batch is not None and len(index) and not 0 <= int(index.min()) <= int(index.max()) < batch:
            raise ValueError(f"rows of this batch lie in 0..{batch - 1}, got {index.tolist()}")
        if goal is not None:
            if self._goal is None or self._goal.ndim != 2:
                raise ValueError("goals of single rows need a goal for each row: reset(goal) with (batch, G) first")
            self._goal[index] = _finite(goal, "the goal").to(self._device)
        if self._following is not None:
            self._following.clock[index] = self._replan_every
            self._following.possible[index] = False

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
        tokens; None lets the planner choose. guide: a further cost on observations (B, T, observation_dim) in recorded
        units. record: keep the plan at every row of denoising in ``history``.
        """
        given = self._observations(observation)
        batch = given if given.ndim == 2 else given.unsqueeze(0)
        aim = self._goal if goal is None else _finite(goal, "the goal").to(self._device)
        horizons = None
        if horizon is not None:
            tokens = -(-horizon // self.model.config.layout.stride)
            if not 1 <= tokens < self.model.config.tokens:
                longest = (self.model.config.tokens - 1) * self.model.config.layout.stride
                raise ValueError(f"a horizon is between 1 and {longest} environment steps for this model, got {horizon}")
            horizons = torch.full((len(batch), 1), tokens)
        return self._make_plan(batch, aim, horizons, guide, record)

    def update(self, batch: Batch | tuple[ArrayLike, ArrayLike]) -> dict[str, float]:
        """One AdamW step on windows of observations (B, S, observation_dim) and actions (B, S, action_dim): the losses.

        For small experiments and data that keep coming; `dfplan.training.train` is the trainer that made shipped weights
        (schedule, moving average, checkpoints). S is ``layout.steps(tokens)``.
        """
        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        tensors = Batch(*(_finite(part, "the batch").to(self._device) for part in batch))
        losses = self.model.train()(tensors, self._generator)
        self._optimizer.zero_grad()
        losses["loss"].backward()
        self._optimizer.step()
        self.model.eval()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    @property
    def _device(self) -> torch.device:
        return self.model.action_low.device

    @property
    def _replan_every(self) -> int:
        """A policy plans one token, so it must decide again at the token's end."""
        if self._goal is None:
            return min(self.config.replan_every, self.model.config.layout.stride)
        return self.config.replan_every

    def _observations(self, observation: ArrayLike) -> Tensor:
        given = _finite(observation, "the observation").to(self._device)
        width = self.model.config.layout.observation_dim
        if given.ndim not in (1, 2) or given.shape[-1] != width:
            raise ValueError(f"an observation must be ({width},) or (batch, {width}), got {tuple(given.shape)}")
        return given

    def _make_plan(
        self, batch: Tensor, goal: Tensor | None, horizons: Tensor | None, guide: Guide | None = None, record: bool = False
    ) -> Plan:
        if goal is not None:
            goal = goal.expand(len(batch), -1)
        # bf16 products are several times faster where the hardware has them, and plans do not suffer.
        with torch.autocast(self._device.type, torch.bfloat16):
            return make_plan(
                self.model, batch, goal, self.config.plan, self._generator, horizons=horizons, guide=guide, record=record
            )

    def _follow(self, batch: Tensor, rows: Tensor, *, anew: bool) -> None:
        """Plan for these rows and start their clocks."""
        goal = self._goal if self._goal is None or self._goal.ndim == 1 else self._goal[rows]
        plan = self._make_plan(batch, goal, None if anew else self._horizons_left(rows))
        self.last_plan = plan
        steps = (self.model.config.tokens - 1) * self.model.config.layout.stride
        path = self.model.observation.normalize(each_step(plan.observations, self.model.config.layout.stride, steps))
        possible = plan.odds >= self.config.plan.margin
        if anew:
            actions = None if plan.actions is None else padded(plan.actions, steps)
            self._following = Following(path, actions, plan.lengths, possible, torch.zeros(len(batch), device=self._device))
            return
        following = self._following
        assert following is not None
        following.path[rows] = path
        if following.actions is not None and plan.actions is not None:
            following.actions[rows] = padded(plan.actions, steps)
        following.lengths[rows] = plan.lengths
        following.possible[rows] = possible
        following.clock[rows] = 0

    def _stay_at_goal(self, batch: Tensor, due: Tensor) -> Tensor:
        """Give those of the due rows that have arrived a plan that stays there; the others are still due."""
        following = self._following
        assert following is not None
        if self._goal is None or self.config.execution != "inverse_dynamics" or not self.config.arrival:
            return due
        goal = self._goal.expand(len(batch), -1)
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
        row = torch.arange(len(batch), device=self._device)
        with torch.no_grad():
            if self.config.execution == "diffused_actions":
                assert following.actions is not None
                now = following.clock.long().clamp(max=following.actions.shape[1] - 1)
                action = following.actions[row, now]
            else:
                played = following.clock * self.config.speed
                ahead = played + self.config.lookahead * self.config.speed
                ahead = ahead.clamp(max=following.path.shape[1] - 1)
                gap = torch.full((len(batch),), float(self.config.lookahead), device=self._device)
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


def _finite(value: ArrayLike, what: str) -> Tensor:
    tensor = torch.from_numpy(np.array(value, dtype=np.float32))  # a copy: `forget` writes into it
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{what} must be finite, got {tensor.tolist()}")
    return tensor
