"""Diffuser (Janner et al. 2022, "Planning with Diffusion for Flexible Behavior Synthesis"), whole in this file.

A temporal U-Net denoises states and actions of a whole plan from one shared noise level. Towards a goal, the plan is
inpainted between the known start and the known goal (sec. 3.2); towards a return, only the start is known and the
gradient of a learned return J steers each denoising step (Algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dfplan.agents.sequence_model import SequenceConfig, SequenceModel, SequencePlan
from dfplan.agents.sequence_planning import SequenceAgentConfig, SequencePlanner, Track
from dfplan.diffusion import matrices
from dfplan.diffusion.guidance import Guidance, LearnedReturn
from dfplan.diffusion.levels import inpainted, shared
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.sampler import Known, sample
from dfplan.fields import NotNegative, Whole, check_columns
from dfplan.models import TemporalUNet, TemporalValue
from dfplan.training.losses import total


class DiffuserModel(SequenceModel):
    """tau, a plan's tokens; epsilon or tau predicted by the U-Net; and, towards a return, the value J of a plan."""

    def __init__(self, config: SequenceConfig):
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
            # As the goal will be shown: one state, and none of the steps that the token closes.
            tau[:, -1] = self.config.layout.state_token(self.observation.normalize(batch[0][:, -1]))
            known[-1] = True
        levels = inpainted(shared(tau.shape[0], tau.shape[1], self.config.levels, generator), known)
        losses = {"diffusion": self.diffusion.loss(tau, levels, generator)}
        if self.J is not None:
            R = self.returns.normalize(batch[2].unsqueeze(-1)).squeeze(-1)
            losses["value"] = (self.J(tau) - R).square().mean()
        return total(losses)

    def plan_to(
        self, observation: Tensor, goal: Tensor | None, config: Any, generator: torch.Generator, record: bool = False
    ) -> SequencePlan:
        layout, T = self.config.layout, self.config.tokens
        tokens = observation.new_zeros(len(observation), T, layout.width)
        mask = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        tokens[:, 0], mask[:, 0] = layout.state_token(self.observation.normalize(observation)), True
        if goal is not None:
            state = self.observation.normalize(self.state_at(goal, self.config.goal_columns))
            tokens[:, -1], mask[:, -1] = layout.state_token(state), True
        drawn = sample(
            self.diffusion,
            matrices.full_sequence(T, self.config.levels, config.steps),
            (len(tokens), T, layout.width),
            generator,
            known=Known(tokens, mask),
            guidance=Guidance(LearnedReturn(self.J), config.scale) if self.J is not None else None,
            eta=config.eta,
            record=record,
        )
        return self.plan_of(drawn)


@dataclass(frozen=True)
class DiffuserAgentConfig(SequenceAgentConfig):
    execution: Literal["pd", "diffused_actions"] = "pd"
    """Track the planned states by a PD controller, or play the actions that were diffused with them."""
    velocity_columns: tuple[Whole, ...] = (2, 3)
    """Observation columns of the velocities that belong to the positions in the goal's columns; for PD."""
    scale: NotNegative = 0.1
    """alpha of Algorithm 1: strength of the gradient of J; without a value it is not used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.velocity_columns)) < len(self.velocity_columns):
            raise ValueError(f"velocity_columns must be different columns, got {self.velocity_columns}")


class DiffuserAgent(SequencePlanner):
    """Plans once an episode; follows the plan by PD tracking of its states, or open-loop by its diffused actions."""

    kind = "diffuser"
    learner_class = DiffuserModel
    learner_config_class = SequenceConfig
    config_class = DiffuserAgentConfig

    def __init__(self, learner: DiffuserModel, config: DiffuserAgentConfig | None = None, card: Any = None):
        super().__init__(learner, config, card)
        layout = learner.config.layout
        if self.config.execution == "diffused_actions" and not layout.actions:
            raise ValueError("this model's tokens hold no actions, so that it cannot execute diffused ones")
        if self.config.execution == "pd" and not len(learner.config.goal_columns) == layout.action_dim == len(
            self.config.velocity_columns
        ):
            raise ValueError("a PD controller needs one position and one velocity column for each action")
        if self.config.execution == "pd":
            check_columns(self.config.velocity_columns, layout.observation_dim, "velocity_columns")

    @property
    def execution(self) -> str:
        """How actions come from plans, in words for a table."""
        return "diffused actions" if self.config.execution == "diffused_actions" else "PD tracking of planned states"

    def _execute(self, batch: Tensor, track: Track) -> Tensor:
        row = torch.arange(len(batch), device=batch.device)
        if self.config.execution == "diffused_actions":
            assert track.actions is not None
            inside = track.clock < track.actions.shape[1]
            action = track.actions[row, track.clock.clamp(max=track.actions.shape[1] - 1)]
            return torch.where(inside.unsqueeze(1), action, 0.0)  # a plan says nothing beyond its end
        position, velocity = list(self.learner.config.goal_columns), list(self.config.velocity_columns)
        last = track.path.shape[1] - 1
        waypoint = track.path[row, (track.clock + 1).clamp(max=last)]
        wished = torch.where((track.clock < last).unsqueeze(1), waypoint[:, velocity], 0.0)  # the end is held at rest
        return waypoint[:, position] - batch[:, position] + wished - batch[:, velocity]
