"""How full-sequence diffusion planners act: a plan is made once an episode, and then followed.

What is learned is in `dfplan.agents.sequence_model`; how a followed plan becomes actions is each agent's own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfplan.agents.following import each_step
from dfplan.agents.sequence_model import SequenceConfig, SequenceModel, SequencePlan
from dfplan.checkpoint import CheckpointError, load_checkpoint, load_into, save_checkpoint
from dfplan.fields import Count, Share, Whole, check_fields


@dataclass(frozen=True)
class SequenceAgentConfig:
    steps: Count = 20
    """Denoising steps from pure noise to a clean plan."""
    eta: Share = 0.0
    """0 for DDIM, 1 for DDPM's ancestral step."""
    replan_every: Whole = 0
    """Environment steps between plans; 0 plans once an episode and holds the plan's last state after its end."""

    def __post_init__(self) -> None:
        check_fields(self)

    def to_header(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


@dataclass
class Track:
    """The plans being followed, a row for each environment, in recorded units."""

    path: Tensor
    """(B, S + 1, observation_dim): one observation for each planned step."""
    actions: Tensor | None
    """(B, S, action_dim) diffused actions, where there are any."""
    clock: Tensor
    """(B,) int64: environment steps since the plan was made."""
    due: Tensor = field(init=False)
    """(B,) bool: rows whose episode began anew."""

    def __post_init__(self) -> None:
        self.due = torch.zeros(len(self.clock), dtype=torch.bool, device=self.clock.device)


class SequencePlanner:
    """An agent that plans a whole sequence and follows it; every row of a batch has a plan of its own.

    A subclass names its ``kind`` and classes, and turns the followed plan into actions (`_act`).
    """

    kind: ClassVar[str]
    learner_class: ClassVar[type[SequenceModel]]
    learner_config_class: ClassVar[type[SequenceConfig]]
    config_class: ClassVar[type[SequenceAgentConfig]]

    def __init__(self, learner: Any, config: Any = None, card: dict[str, Any] | None = None):
        self.learner = learner.eval()
        self.config: Any = config or self.config_class()  # of `config_class`
        self.card = card or {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._generator = torch.Generator(self._device).manual_seed(0)
        self.reset()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The agent of a file written by `save`. Raises CheckpointError for a file that is not one."""
        tensors, header = load_checkpoint(Path(path))
        if header.get("kind") != cls.kind:
            raise CheckpointError(f"{path} holds {header.get('kind')!r}, not the weights of {cls.kind!r}")
        try:
            learner = cls.learner_class(cls.learner_config_class.from_header(header["config"]))
            config, card = cls.config_class(**header["agent"]), header["card"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} describes an agent that this version cannot build: {error}") from error
        load_into(learner, tensors, Path(path))
        return cls(learner, config, card)

    def save(self, path: str | Path) -> None:
        """Write weights, config and card as one safetensors file that `load` reads."""
        header = {"config": self.learner.to_header(), "agent": self.config.to_header(), "card": self.card}
        save_checkpoint(Path(path), self.learner.state_dict(), {"kind": self.kind} | header)

    def with_options(self, **changes: Any) -> Self:
        """An agent with the same weights and other fields of its config."""
        try:
            config = dataclasses.replace(self.config, **changes)
        except TypeError as error:
            raise ValueError(f"unknown option among {sorted(changes)}: {error}") from error
        return type(self)(self.learner, config, self.card)

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.learner.parameters())

    def reset(self, goal: ArrayLike | None = None, seed: int | None = None) -> None:
        """Forget the plan; take a goal (G,) for all rows or (B, G) for each, in recorded units.

        ``seed`` starts the agent's own randomness anew. A planner towards a return has no use for the goal.
        """
        self._goal: Tensor | None = None
        if goal is not None and self.learner.config.towards == "goal":
            self._goal = self._tensor(goal, "the goal", len(self.learner.config.goal_columns))
        if seed is not None:
            self._generator = torch.Generator(self._device).manual_seed(seed)
        self._track: Track | None = None
        self.last_plan: SequencePlan | None = None

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """The action (action_dim,) for an observation (observation_dim,), or (B, action_dim) for (B, observation_dim)."""
        given = self._tensor(observation, "the observation", self.learner.config.layout.observation_dim)
        batch = given if given.ndim == 2 else given.unsqueeze(0)
        if self._track is None or len(self._track.clock) != len(batch):
            self._follow(batch, None)
        assert self._track is not None
        due = self._track.due
        if self.config.replan_every:
            due = due | (self._track.clock >= self.config.replan_every)
        if bool(due.any()):
            rows = due.nonzero().squeeze(1)
            self._follow(batch[rows], rows)
        with torch.no_grad():
            action = self._act(batch, self._track).clamp(self.learner.action_low, self.learner.action_high)
        self._track.clock += 1
        return (action if given.ndim == 2 else action[0]).cpu().numpy()

    def forget(self, rows: ArrayLike, goal: ArrayLike | None = None) -> None:
        """New episodes began in these rows of the batch: plan them anew at the next `act`, to new goals (len(rows), G)."""
        index = torch.as_tensor(rows, device=self._device).reshape(-1)
        if goal is not None:
            if self._goal is None or self._goal.ndim != 2:
                raise ValueError("goals of single rows need a goal for each row: reset(goal) with (batch, G) first")
            self._goal[index] = self._tensor(goal, "the goal", self._goal.shape[1])
        if self._track is not None:
            self._track.due[index] = True

    def to(self, device: str | torch.device) -> Self:
        """Move the weights, and forget goal and plan; returns the agent."""
        self.learner.to(device)
        self._generator = torch.Generator(self._device).manual_seed(0)
        self.reset()
        return self

    def plan(self, observation: ArrayLike, goal: ArrayLike | None = None, *, record: bool = False) -> SequencePlan:
        """Plan from one observation or a batch without acting; None is the goal of the last reset.

        record: keep the plan at every row of denoising in ``history``.
        """
        config = self.learner.config
        batch = torch.atleast_2d(self._tensor(observation, "the observation", config.layout.observation_dim))
        aim = self._goal if goal is None else self._tensor(goal, "the goal", len(config.goal_columns))
        if config.towards == "goal" and aim is None:
            raise ValueError("this planner needs a goal: give it one by reset(goal=...) before it acts")
        # bf16 products are several times faster where the hardware has them, and plans do not suffer.
        with torch.autocast(self._device.type, torch.bfloat16), torch.no_grad():
            if aim is not None and aim.ndim == 2 and len(aim) not in (1, len(batch)):
                raise ValueError(f"there are {len(aim)} goals for a batch of {len(batch)} observations")
            goals = None if aim is None else aim.expand(len(batch), -1)
            return self.learner.plan_to(batch, goals, self.config, self._generator, record)

    def update(self, batch: tuple[ArrayLike, ...]) -> dict[str, float]:
        """One AdamW step on a batch as of the learner's `batches`: its losses."""
        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(self.learner.parameters(), lr=2e-4)
        tensors = tuple(torch.as_tensor(np.asarray(part, dtype=np.float32), device=self._device) for part in batch)
        losses = self.learner.train()(tensors, self._generator)
        self._optimizer.zero_grad()
        losses["loss"].backward()
        self._optimizer.step()
        self.learner.eval()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _act(self, batch: Tensor, track: Track) -> Tensor:
        """Actions (B, action_dim) in recorded units for observations (B, observation_dim) along the track."""
        raise NotImplementedError

    def _follow(self, batch: Tensor, rows: Tensor | None) -> None:
        """Plan for these rows, or for all where None, and start their clocks."""
        goal = self._goal if rows is None or self._goal is None or self._goal.ndim == 1 else self._goal[rows]
        plan = self.plan(batch, goal)
        self.last_plan = plan
        path = each_step(plan.observations, self.learner.config.layout.stride, self.learner.config.steps)
        if rows is None or self._track is None:
            clock = torch.zeros(len(batch), dtype=torch.long, device=self._device)
            self._track = Track(path, plan.actions, clock)
            return
        self._track.path[rows], self._track.clock[rows], self._track.due[rows] = path, 0, False
        if self._track.actions is not None and plan.actions is not None:
            self._track.actions[rows] = plan.actions

    @property
    def _device(self) -> torch.device:
        return self.learner.action_low.device

    def _tensor(self, value: ArrayLike | Tensor, what: str, width: int) -> Tensor:
        """A copy as float32 (width,) or (batch, width), finite."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        tensor = torch.from_numpy(np.array(array, dtype=np.float32)).to(self._device)
        if tensor.ndim not in (1, 2) or tensor.shape[-1] != width:
            raise ValueError(f"{what} must be ({width},) or (batch, {width}), got {tuple(tensor.shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{what} must be finite, got {tensor.tolist()}")
        return tensor
