"""How full-sequence diffusion planners act: a plan is made once an episode, or every so many steps, and followed.

Diffuser (`dfplan.agents.diffuser`) and Decision Diffuser (`dfplan.agents.decision_diffuser`) add how actions come from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dfplan.agents.planning_agent import PlanningAgent
from dfplan.arrays import Shape
from dfplan.fields import Whole
from dfplan.planning.ask import Ask
from dfplan.planning.full_sequence import SamplingConfig, SequenceModel
from dfplan.planning.plan import Plan


@dataclass(frozen=True)
class SequenceAgentConfig(SamplingConfig):
    """How plans are made, and when."""

    replan_every: Whole = 0
    """Environment steps between plans; 0 plans once an episode and holds the plan's last state after its end."""


class SequenceAgent(PlanningAgent):
    """An agent that plans a whole sequence and follows it. One that does not plan to goals ignores them."""

    learner: SequenceModel
    config: SequenceAgentConfig
    learning_rate = 2e-4

    def _fit_learner(self) -> None:
        made = self.learner.config
        if made.towards == "goal":
            self.goal_dim, self.needs_goal = len(made.goal_columns), True
        if made.towards != "return":
            self.answers = frozenset()

    def _draw(self, observation: Tensor, ask: Ask, record: bool = False, horizons: Tensor | None = None) -> Plan:
        return self.learner.plan(observation, ask, self.config, self._generator, record)

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """As `ReturnWindows.sample` draws them, S one more than the plan's steps.

        Without the last part all steps were recorded; returns are needed by a planner towards them only.
        """
        S, layout = self.learner.config.steps + 1, self.learner.config.layout
        parts: dict[str, Shape] = {
            "observations": ("B", S, layout.observation_dim),
            "actions": ("B", S, layout.action_dim),
        }
        if self.learner.config.towards == "return" or given != 2:
            parts["returns"] = ("B",)
        return parts | ({"recorded steps": ("B",)} if given > 3 else {})

    def _read_batch(self, batch: Any, parts: Mapping[str, Shape]) -> list[NDArray[Any]]:
        arrays, S = super()._read_batch(batch, parts), self.learner.config.steps + 1
        if len(arrays) > 3 and not np.isin(arrays[3], np.arange(1, S + 1)).all():
            raise ValueError(f"the batch's recorded steps must be whole numbers from 1 to {S}")
        return arrays
