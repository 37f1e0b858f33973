"""What is trained and shipped: units, diffusion, inverse dynamics and plausibility as one module with one config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dfplan.data.statistics import Statistics
from dfplan.data.tokens import TokenLayout
from dfplan.diffusion.levels import Mixture
from dfplan.diffusion.loss import Diffusion, Weighting
from dfplan.diffusion.noise import NoiseSchedule, Prediction, ScheduleName
from dfplan.fields import CheckedFields, Positive, Size, check_columns
from dfplan.models import InverseDynamics, ModelConfig, StepPlausibility, TransformerConfig, build
from dfplan.training.losses import total


@dataclass(frozen=True)
class PlausibilityConfig(CheckedFields):
    """How steps that the data could have made are told from others: `dfplan.models.StepPlausibility`."""

    noise: tuple[Positive, Positive] = (0.08, 0.6)
    """Smallest and largest deviation of the noise that makes false steps, in normalized units."""
    gain: Positive = 3.0
    """Factor of a step on its way into the network: about one over its length, in normalized units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise[0] > self.noise[1]:
            raise ValueError(f"noise must be the smallest deviation and then the largest, got {self.noise}")


@dataclass(frozen=True)
class TrajectoryModelConfig(CheckedFields):
    """Of what a trajectory model is made, and what it learns."""

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
    """Inverse dynamics is trained on targets 1 to this many steps ahead."""
    plausibility: PlausibilityConfig | None = field(default_factory=PlausibilityConfig)
    """How plausible steps are learned, by which the planner chooses a length. None: they are not, and the longest is tried."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.goal_columns, self.layout.observation_dim, "goal_columns")
        if self.tokens < 2:
            raise ValueError(f"a trajectory needs a start token and at least one more, got tokens={self.tokens}")

    @property
    def judged(self) -> tuple[int, ...]:
        """Observation columns by which a plan's steps are judged: the goal's, or all where there is no goal."""
        return self.goal_columns or tuple(range(self.layout.observation_dim))


INVERSE_PAIRS, PLAUSIBLE_STEPS = 8, 16
"""How many of each window's steps are learned from in one batch."""


class Batch(NamedTuple):
    """Windows of consecutive steps in recorded units."""

    observations: Tensor
    """(B, S, observation_dim), S = layout.steps(tokens)."""
    actions: Tensor
    """(B, S, action_dim)."""


class TrajectoryModel(Statistics):
    """What is learned from recorded behavior alone: a diffusion of trajectories, inverse dynamics, and plausible steps."""

    former_names: ClassVar[Mapping[str, str]] = {"critic.": "plausibility."}
    """Beginnings of the names that tensors have in older files, and what they are now."""
    plausibility: StepPlausibility | None

    def __init__(self, config: TrajectoryModelConfig):
        layout = config.layout
        super().__init__(layout.observation_dim, layout.action_dim)
        self.config = config
        network = build(layout.width, config.levels, config.model)
        schedule = NoiseSchedule(config.schedule, config.levels)
        self.diffusion = Diffusion(network, schedule, config.prediction, config.weighting)
        self.inverse = InverseDynamics(layout.observation_dim, layout.action_dim, config.longest_gap)
        judge = config.plausibility
        self.plausibility = None
        if judge is not None:
            self.plausibility = StepPlausibility(len(config.judged), noise=judge.noise, gain=judge.gain)
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
        }
        if self.plausibility is not None:
            losses["plausibility"] = self._plausibility_loss(self.plausibility, observations, generator)
        return total(losses)

    def _inverse_loss(self, observations: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the action at a few random steps of each window, for a target a random gap ahead."""
        (B, S, _), pairs = observations.shape, INVERSE_PAIRS
        longest = min(self.config.longest_gap, S - 1)
        gap = torch.randint(1, longest + 1, (B, pairs), generator=generator, device=observations.device)
        row, start = _random_starts(observations, pairs, S - gap, generator)
        guess = self.inverse(
            observations[row, start].flatten(0, 1), observations[row, start + gap].flatten(0, 1), gap.flatten()
        )
        return (guess - actions[row, start].flatten(0, 1)).square().mean()

    def _plausibility_loss(
        self, plausibility: StepPlausibility, observations: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The loss of a few random steps of each window, one token long."""
        stride = self.config.layout.stride
        places = observations[..., list(self.config.judged)]
        row, start = _random_starts(places, PLAUSIBLE_STEPS, places.shape[1] - stride, generator)
        return plausibility.loss(places[row, start].flatten(0, 1), places[row, start + stride].flatten(0, 1), generator)


def _random_starts(
    windows: Tensor, each: int, count: int | Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows (B, 1) of windows (B, ...) and `each` starts (B, each) in them, uniform in 0..count-1."""
    B, device = len(windows), windows.device
    start = (torch.rand((B, each), generator=generator, device=device, dtype=torch.float32) * count).long()
    return torch.arange(B, device=device).unsqueeze(1), start
