"""Decision Diffuser (Ajay et al. 2023, "Is Conditional Generative Modeling all you need for Decision Making?"), whole
in this file.

A temporal U-Net denoises the states of a plan, and states only, from a known start; what the plan is for, y, is an input
of the network: a goal, or a return. Classifier-free guidance with weight omega makes plans follow y more closely than
the data does. Actions come from inverse dynamics, learned beside the plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfplan.agents.sequence_model import SequenceConfig, SequenceModel, SequencePlan
from dfplan.agents.sequence_planning import SequenceAgentConfig, SequencePlanner, Track
from dfplan.diffusion import matrices
from dfplan.diffusion.levels import shared_from_start
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.sampler import Known, sample
from dfplan.fields import NotNegative
from dfplan.models import InverseDynamics, TemporalUNet
from dfplan.training.losses import total

PAIRS = 8
"""Steps of each window that inverse dynamics learns from in one batch."""


@dataclass(frozen=True)
class DecisionDiffuserConfig(SequenceConfig):
    dropout: float = 0.25
    """p: share of the training plans whose condition y is hidden, so that one network knows both distributions."""
    gap: int = 8
    """Inverse dynamics gives the action that leads to the planned state this many environment steps ahead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1 or not 1 <= self.gap <= self.steps:
            raise ValueError(f"dropout must lie in [0, 1) and gap in 1..{self.steps}, got {self.dropout} and {self.gap}")
        if self.layout.actions:
            raise ValueError("Decision Diffuser plans states only: the layout must have actions=False")


class Conditioned(nn.Module):
    """The denoiser given y: f(x, k, none) + omega (f(x, k, y) - f(x, k, none)); at omega = 1, f(x, k, y)."""

    def __init__(self, network: TemporalUNet, y: Tensor, omega: float = 1.0):
        super().__init__()
        self.network, self.y, self.omega = network, y, omega

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        if self.omega == 1:
            return self.network(x, k, self.y)
        y = torch.cat([self.y, torch.full_like(self.y, torch.nan)])
        given, free = self.network(x.repeat(2, 1, 1), k.repeat(2, 1), y).chunk(2)
        return free + self.omega * (given - free)


class DecisionDiffuserModel(SequenceModel):
    """The conditional denoiser of states and the inverse dynamics a = f(s_t, s_{t + gap})."""

    config: DecisionDiffuserConfig

    def __init__(self, config: DecisionDiffuserConfig):
        super().__init__(config)
        layout = config.layout
        condition = len(config.goal_columns) if config.towards == "goal" else 1
        self.network = TemporalUNet(layout.width, config.levels, config.network, condition)
        self.inverse = InverseDynamics(layout.observation_dim, layout.action_dim, config.gap)

    def given(self, y: Tensor, omega: float = 1.0) -> Diffusion:
        """The diffusion of plans given y (B, columns), NaN in rows without a condition."""
        return Diffusion(Conditioned(self.network, y, omega), self.schedule, self.config.prediction, "uniform")

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """E ||x - f(x^k, k, y or none)||^2 + E ||a_t - f(s_t, s_{t + gap})||^2 (their eq. 8), y what the plan came to."""
        s, a = self.observation.normalize(batch[0]), self.action.normalize(batch[1])
        if self.config.towards == "goal":
            y = s[:, -1, list(self.config.goal_columns)]
        else:
            y = self.returns.normalize(batch[2].unsqueeze(-1))
        recorded = batch[3] if len(batch) > 3 else s.new_full((len(s),), s.shape[1])
        hidden = torch.rand((len(y), 1), generator=generator, device=y.device, dtype=y.dtype) < self.config.dropout
        x = self.config.layout.pack(s, a)
        levels = shared_from_start(x.shape[0], x.shape[1], self.config.levels, generator)
        losses = {
            "diffusion": self.given(y.masked_fill(hidden, torch.nan)).loss(x, levels, generator),
            "inverse": self._inverse_loss(s, a, recorded, generator),
        }
        return total(losses)

    def _inverse_loss(self, s: Tensor, a: Tensor, recorded: Tensor, generator: torch.Generator) -> Tensor:
        """Of a few random pairs in each window; no action is learned from the rest after an end."""
        B, S, _ = s.shape
        t = torch.randint(0, S - self.config.gap, (B, PAIRS), generator=generator, device=s.device)
        t = t.remainder(recorded.long().unsqueeze(1))
        row = torch.arange(B, device=s.device).unsqueeze(1)
        guess = self.act_towards(s[row, t].flatten(0, 1), s[row, t + self.config.gap].flatten(0, 1))
        return (guess - a[row, t].flatten(0, 1)).square().mean()

    def act_towards(self, s: Tensor, wished: Tensor) -> Tensor:
        """Normalised actions (B, action_dim) from normalised states to those wished ``gap`` steps later."""
        return self.inverse(s, wished, s.new_full((len(s),), self.config.gap))

    def plan_to(
        self, observation: Tensor, goal: Tensor | None, config: Any, generator: torch.Generator, record: bool = False
    ) -> SequencePlan:
        layout, B, T = self.config.layout, len(observation), self.config.tokens
        tokens = observation.new_zeros(B, T, layout.width)
        tokens[:, 0] = layout.state_token(self.observation.normalize(observation))
        mask = torch.zeros((B, T), dtype=torch.bool, device=tokens.device)
        mask[:, 0] = True
        if goal is not None:
            y = self.observation.normalize(self.state_at(goal, self.config.goal_columns))[:, list(self.config.goal_columns)]
        else:
            y = self.returns.normalize((config.target * self.best_return).expand(B, 1))
        drawn = sample(
            self.given(y, config.omega),
            matrices.full_sequence(T, self.config.levels, config.steps),
            (B, T, layout.width),
            generator,
            known=Known(tokens, mask),
            eta=config.eta,
            record=record,
        )
        return self.plan_of(drawn)


@dataclass(frozen=True)
class DecisionDiffuserAgentConfig(SequenceAgentConfig):
    omega: NotNegative = 2.0
    """Weight of classifier-free guidance: 0 ignores y, 1 samples the learned distribution given y, above is stronger."""
    target: float = 1.0
    """Return to ask for, as a share of the best window's in the data; of planners towards a return."""


class DecisionDiffuserAgent(SequencePlanner):
    """Plans states and acts by inverse dynamics; beyond a plan's end it wishes to be at rest there."""

    kind = "decision_diffuser"
    learner_class = DecisionDiffuserModel
    learner_config_class = DecisionDiffuserConfig
    config_class = DecisionDiffuserAgentConfig
    execution = "learned inverse dynamics"

    def _execute(self, batch: Tensor, track: Track) -> Tensor:
        model: DecisionDiffuserModel = self.learner
        last = track.path.shape[1] - 1
        ahead = track.clock + model.config.gap
        row = torch.arange(len(batch), device=batch.device)
        wished = model.observation.normalize(track.path[row, ahead.clamp(max=last)])
        rest = model.state_at(track.path[:, -1, list(model.config.goal_columns)], model.config.goal_columns)
        rest = model.observation.normalize(rest)
        wished = torch.where((ahead > last).unsqueeze(1), rest, wished)
        return model.action.denormalize(model.act_towards(model.observation.normalize(batch), wished))
