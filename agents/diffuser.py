"""Diffuser (Janner et al. 2022, "Planning with Diffusion for Flexible Behavior Synthesis"), whole in this file.

A temporal U-Net denoises states and actions of a whole plan from one shared noise level. Towards a goal, the plan is
inpainted between the known start and the known goal (sec. 3.2). Else only the start is known; towards a return, the
gradient of a learned return J steers each denoising step (Algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dfplan.agents.full_sequence import SequenceAgent, SequenceAgentConfig
from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.levels import inpainted, shared
from dfplan.diffusion.loss import Diffusion
from dfplan.fields import NotNegative, Whole, check_columns
from dfplan.models import TemporalUNet, TemporalValue
from dfplan.planning.ask import Ask
from dfplan.planning.ends import known_ends
from dfplan.planning.execution import Following, by_pd, diffused_action
from dfplan.planning.full_sequence import SequenceConfig, SequenceModel
from dfplan.planning.plan import Plan
from dfplan.training.losses import total


@dataclass(frozen=True)
class DiffuserConfig(SequenceConfig):
    """What is learned, and how large."""

    end: Literal["observation", "goal"] = "observation"
    """What training shows of the end of a plan to a goal: the observation, or, as planning does, its goal columns alone, the
    others at the data's mean."""


class DiffuserModel(SequenceModel):
    """tau, a plan's tokens; epsilon or tau predicted by the U-Net; and, towards a return, the value J of a plan."""

    config: DiffuserConfig

    def __init__(self, config: DiffuserConfig):
        super().__init__(config)
        network = TemporalUNet(config.layout.width, config.levels, config.network)
        self.diffusion = Diffusion(network, self.schedule, config.prediction, weighting="uniform")
        self.J = TemporalValue(config.layout.width, config.network) if config.towards == "return" else None

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """E ||tau - f(tau^k, k)||^2 with the known tokens shown clean, and, with a value, E (J(tau) - R)^2."""
        tau = self.config.layout.pack(self.observation.normalize(batch[0]), self.action.normalize(batch[1]))
        known = torch.zeros(tau.shape[1], dtype=torch.bool, device=tau.device)
        known[0] = True
        if self.config.towards == "goal":
            end, columns = batch[0][:, -1], self.config.goal_columns
            if self.config.end == "goal":
                end = self.state_at(end[:, list(columns)], columns)
            tau[:, -1] = self.token_at(end)  # as in planning: one state, without the steps to it
            known[-1] = True
        levels = inpainted(shared(tau.shape[0], tau.shape[1], self.config.levels, generator), known)
        losses = {"diffusion": self.diffusion.loss(tau, levels, generator)}
        if self.J is not None:
            R = self.returns.normalize(batch[2].unsqueeze(-1)).squeeze(-1)
            losses["value"] = (self.J(tau) - R).square().mean()
        return total(losses)

    def plan(
        self, observation: Tensor, ask: Ask, config: Any, generator: torch.Generator, record: bool = False
    ) -> Plan:
        """Plans from observations (B, observation_dim) to goals (B, G), or of a high J."""
        end = None
        if self.config.towards == "goal":
            end = self.token_at(self.state_at(ask.goal, self.config.goal_columns))
        J = self.J
        guidance = None if J is None else Guidance(lambda x0: -J(x0), config.scale)
        known = known_ends(self.token_at(observation), self.config.tokens, end)
        return self.draw(self.diffusion, known, config, generator, record, guidance)


@dataclass(frozen=True)
class DiffuserAgentConfig(SequenceAgentConfig):
    """How Diffuser acts."""

    execution: Literal["pd", "diffused_actions"] = "diffused_actions"
    """Track the planned states by a PD controller, or play the actions that were diffused with them."""
    velocity_columns: tuple[Whole, ...] = ()
    """Observation columns of the velocities that belong to the positions in the goal's columns; for PD."""
    scale: NotNegative = 0.1
    """alpha of Algorithm 1: strength of the gradient of J; without a value it is not used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.velocity_columns)) < len(self.velocity_columns):
            raise ValueError(f"velocity_columns must be different columns, got {self.velocity_columns}")


class DiffuserAgent(SequenceAgent):
    """Plans once an episode; follows the plan by PD tracking of its states, or open-loop by its diffused actions."""

    kind = "diffuser"
    learner_class, learner_config_class, config_class = DiffuserModel, DiffuserConfig, DiffuserAgentConfig
    config: DiffuserAgentConfig

    def _fit_learner(self) -> None:
        super()._fit_learner()
        layout, velocities = self.learner.config.layout, self.config.velocity_columns
        if self.config.execution == "pd":
            if not len(self.learner.config.goal_columns) == layout.action_dim == len(velocities):
                raise ValueError("a PD controller needs one position and one velocity column for each action")
            check_columns(velocities, layout.observation_dim, "velocity_columns")
        elif not layout.actions:
            raise ValueError("this model's tokens hold no actions, so that it cannot execute diffused ones")

    @property
    def execution(self) -> str:
        """How actions come from plans, in words for a table."""
        return "diffused actions" if self.config.execution == "diffused_actions" else "PD tracking of planned states"

    def _execute(self, observation: Tensor, following: Following) -> Tensor:
        if self.config.execution == "pd":
            return by_pd(observation, following, self.learner.config.goal_columns, self.config.velocity_columns)
        ended = following.clock >= self.learner.config.steps
        return diffused_action(following).masked_fill(ended.unsqueeze(1), 0.0)  # a plan has no actions beyond its end
