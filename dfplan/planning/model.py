"""What is trained and shipped: tokens, normalisers, diffusion and inverse dynamics as one module with one config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from dfplan.data.statistics import Statistics
from dfplan.data.tokens import TokenLayout
from dfplan.diffusion.levels import Mixture
from dfplan.diffusion.loss import Diffusion, Weighting
from dfplan.diffusion.noise import NoiseSchedule, Prediction, ScheduleName
from dfplan.fields import Size, check_columns, check_fields
from dfplan.models import InverseDynamics, ModelConfig, StepPlausibility, TransformerConfig, build
from dfplan.training.losses import total


@dataclass(frozen=True)
class TrajectoryModelConfig:
    layout: TokenLayout
    """Which columns of a token are observation and action, and how many steps it covers."""
    goal_columns: tuple[int, ...] = (0, 1)
    """Observation columns in which a goal is given; without any, the model is a policy that plans to no goal."""
    tokens: Size = 64
    """Length T of the training windows, start token included: the longest plan."""
    model: ModelConfig = field(default_factory=TransformerConfig)
    """The denoiser: a TransformerConfig or a RecurrentConfig."""
    schedule: ScheduleName = "cosine"
    """How alpha_bar falls with the level."""
    levels: Size = 256
    """K: the level of pure noise."""
    prediction: Prediction = "v"
    """What the network is asked for."""
    weighting: Weighting = "min_snr"
    """How the loss weighs the levels."""
    draws: dict[str, float] = field(default_factory=lambda: {"independent": 0.5, "goal_ramp": 0.5})
    """How training draws levels: names of `dfplan.diffusion.levels.DRAWS` with weights."""
    longest_gap: Size = 15
    """Inverse dynamics is trained on wishes 1 to this many steps ahead."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_columns(self.goal_columns, self.layout.observation_dim, "goal_columns")
        if self.tokens < 2:
            raise ValueError(f"a trajectory needs a start token and at least one more, got tokens={self.tokens}")

    @property
    def judged(self) -> tuple[int, ...]:
        """Observation columns by which the critic judges a plan's steps: the goal's, or all where there is no goal."""
        return self.goal_columns or tuple(range(self.layout.observation_dim))


PAIRS = 16
"""Steps of each window that inverse dynamics and critic learn from in one batch."""


class Batch(NamedTuple):
    """Windows of consecutive steps in recorded units."""

    observations: Tensor
    """(B, S, observation_dim), S = layout.steps(tokens)."""
    actions: Tensor
    """(B, S, action_dim)."""


class TrajectoryModel(Statistics):
    """What is learned from recorded behavior alone: a diffusion of trajectories, inverse dynamics, and plausible steps."""

    def __init__(self, config: TrajectoryModelConfig):
        layout = config.layout
        super().__init__(layout.observation_dim, layout.action_dim)
        self.config = config
        network = build(layout.width, config.levels, config.model)
        schedule = NoiseSchedule(config.schedule, config.levels)
        self.diffusion = Diffusion(network, schedule, config.prediction, config.weighting)
        self.inverse = InverseDynamics(layout.observation_dim, layout.action_dim, config.longest_gap)
        self.critic = StepPlausibility(len(config.judged), noise=(0.08, 0.6), gain=3.0)
        self.draw = Mixture(config.draws)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of one batch, to be minimised together under 'loss'."""
        observations = self.observation.normalize(batch[0])
        actions = self.action.normalize(batch[1])
        x0 = self.config.layout.pack(observations, actions)
        levels = self.draw(x0.shape[0], x0.shape[1], self.config.levels, generator)
        x0 = self.config.layout.as_states(x0, levels.goal)  # as planning shows a goal: nothing of the way there
        losses = {
            "diffusion": self.diffusion.loss(x0, levels, generator),
            "inverse": self._inverse_loss(observations, actions, generator),
            "critic": self._critic_loss(observations, generator),
        }
        return total(losses)

    def _inverse_loss(
        self, observations: Tensor, actions: Tensor, generator: torch.Generator, pairs: int = 8
    ) -> Tensor:
        """Mean squared error of the action at a few random steps of each window, for a wish a random gap ahead."""
        B, S, _ = observations.shape
        longest = min(self.config.longest_gap, S - 1)
        device = observations.device
        gap = torch.randint(1, longest + 1, (B, pairs), generator=generator, device=device)
        start = (torch.rand((B, pairs), generator=generator, device=device, dtype=torch.float32) * (S - gap)).long()
        row = torch.arange(B, device=device).unsqueeze(1)
        guess = self.inverse(
            observations[row, start].flatten(0, 1), observations[row, start + gap].flatten(0, 1), gap.flatten()
        )
        return (guess - actions[row, start].flatten(0, 1)).square().mean()

    def _critic_loss(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        """The critic's loss on a few random steps of each window."""
        B, S, _ = observations.shape
        stride = self.config.layout.stride
        places = observations[..., list(self.config.judged)]
        row, start = _random_starts(B, torch.full((B, PAIRS), S - stride, device=places.device), generator)
        return self.critic.loss(places[row, start].flatten(0, 1), places[row, start + stride].flatten(0, 1), generator)


def _random_starts(windows: int, count: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Row (B, 1) and a start uniform in 0..count-1 for each entry of count (B, P)."""
    start = (torch.rand(count.shape, generator=generator, device=count.device, dtype=torch.float32) * count).long()
    return torch.arange(windows, device=count.device).unsqueeze(1), start
