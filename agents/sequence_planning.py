"""How full-sequence diffusion planners act: a plan is made once an episode, and then followed.

What is learned is in `dfplan.agents.sequence_model`; how a followed plan becomes actions is each agent's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfplan.agents.base import LearningAgent, Shape
from dfplan.agents.sequence_model import SequenceConfig, SequenceModel, SequencePlan
from dfplan.config_json import config_from_json, config_to_json
from dfplan.fields import Share, Size, Whole, check_fields
from dfplan.planning.execution import each_step
from dfplan.training.weights_file import Header, load_weights, naming, restored, save_weights


@dataclass(frozen=True)
class SequenceAgentConfig:
    steps: Size = 20
    """Denoising steps from pure noise to a clean plan."""
    eta: Share = 0.0
    """0 for DDIM, 1 for DDPM's ancestral step."""
    replan_every: Whole = 0
    """Environment steps between plans; 0 plans once an episode and holds the plan's last state after its end."""

    def __post_init__(self) -> None:
        check_fields(self)


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


class SequencePlanner(LearningAgent):
    """An agent that plans a whole sequence and follows it; every row of a batch has a plan of its own.

    A subclass names its ``kind`` and classes, and turns the followed plan into actions (`_execute`). A planner towards a
    return has no use for a goal.
    """

    kind: ClassVar[str]
    learner_class: ClassVar[type[SequenceModel]]
    learner_config_class: ClassVar[type[SequenceConfig]]
    config_class: ClassVar[type[SequenceAgentConfig]]
    learning_rate = 2e-4

    def __init__(self, learner: Any, config: Any = None, card: dict[str, Any] | None = None):
        goal_dim = len(learner.config.goal_columns) if learner.config.towards == "goal" else None
        observation_dim = learner.config.layout.observation_dim
        super().__init__(learner, config or self.config_class(), card, observation_dim=observation_dim, goal_dim=goal_dim)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The agent of a file written by `save`. Raises CheckpointError for a file that is not one."""
        tensors, header = load_weights(path, cls.kind)
        learner = restored(cls.learner_class, cls.learner_config_class, header.config, tensors, path)
        with naming(path):
            return cls(learner, config_from_json(cls.config_class, header.agent, "agent"), header.card)

    def save(self, path: str | Path) -> None:
        """Write weights, config and card as one safetensors file that `load` reads."""
        configs = config_to_json(self.learner.config), self.card, config_to_json(self.config)
        save_weights(path, self.learner.state_dict(), Header(self.kind, *configs))

    def _begin(self) -> None:
        self._track: Track | None = None
        self.last_plan: SequencePlan | None = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        if self._track is not None:
            self._track.due[rows] = True

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        observation, goal = self._tensor(batch), self._tensor(goals)
        if self._track is None:
            self._follow(observation, goal, None)
        assert self._track is not None
        due = self._track.due
        if self.config.replan_every:
            due = due | (self._track.clock >= self.config.replan_every)
        if bool(due.any()):
            rows = due.nonzero().squeeze(1)
            self._follow(observation[rows], None if goal is None else goal[rows], rows)
        action = self._execute(observation, self._track).clamp(self.learner.action_low, self.learner.action_high)
        self._track.clock += 1
        return action.cpu().numpy()

    def plan(self, observation: ArrayLike, goal: ArrayLike | None = None, *, record: bool = False) -> SequencePlan:
        """Plan from one observation or a batch without acting; None is the goal of the last reset.

        record: keep the plan at every row of denoising in ``history``.
        """
        batch = np.atleast_2d(self._read_observation(observation))
        goals = self._goals(self._goal if goal is None else self._read_goal(goal), len(batch))
        with self._undisturbed():
            return self._make_plan(self._tensor(batch), self._tensor(goals), record)

    def update(self, batch: tuple[ArrayLike, ...]) -> dict[str, float]:
        """One AdamW step on a batch as of the learner's `batches`: its losses.

        Observations (B, S, observation_dim), actions (B, S, action_dim), returns (B,) and recorded steps (B,), S one more
        than the plan's steps. All steps were recorded where the last part is left out; a planner to a goal needs no
        returns.
        """
        config = self.learner.config
        S, layout = config.steps + 1, config.layout
        shapes: dict[str, Shape] = {"observations": ("B", S, layout.observation_dim), "actions": ("B", S, layout.action_dim)}
        parts = len(batch) if isinstance(batch, list | tuple) else 0
        if config.towards == "return" or parts != 2:
            shapes["returns"] = ("B",)
        if parts > 3:
            shapes["recorded steps"] = ("B",)
        arrays = self._read_batch(batch, shapes)
        if parts > 3 and not np.isin(arrays[3], np.arange(1, S + 1)).all():
            raise ValueError(f"{self._name}: the batch's recorded steps must be whole numbers from 1 to {S}")
        return self._learn(arrays)

    def _execute(self, batch: Tensor, track: Track) -> Tensor:
        """Actions (B, action_dim) in recorded units for observations (B, observation_dim) along the track."""
        raise NotImplementedError

    def _make_plan(self, batch: Tensor, goals: Tensor | None, record: bool = False) -> SequencePlan:
        towards_goal = self.learner.config.towards == "goal"
        if towards_goal and goals is None:
            raise ValueError("this planner needs a goal: call reset(goal=...) before it acts")
        # bf16 products are several times faster where the hardware has them, and plans do not suffer.
        with torch.autocast(self.device.type, torch.bfloat16):
            plan = self.learner.plan_to(batch, goals if towards_goal else None, self.config, self._generator, record)
        self._finite("plan", plan.observations, *(() if plan.actions is None else (plan.actions,)))
        return plan

    def _follow(self, batch: Tensor, goals: Tensor | None, rows: Tensor | None) -> None:
        """Plan for these rows, or for all where None, and start their clocks."""
        plan = self._make_plan(batch, goals)
        self.last_plan = plan
        path = each_step(plan.observations, self.learner.config.layout.stride, self.learner.config.steps)
        if rows is None or self._track is None:
            clock = torch.zeros(len(batch), dtype=torch.long, device=self.device)
            self._track = Track(path, plan.actions, clock)
            return
        self._track.path[rows], self._track.clock[rows], self._track.due[rows] = path, 0, False
        if self._track.actions is not None and plan.actions is not None:
            self._track.actions[rows] = plan.actions
