"""What is trained and shipped: units, diffusion, and what a config asks for beside it, as one module with one config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfplan.data.returns import returns_to_go
from dfplan.data.statistics import Normalizer, Statistics
from dfplan.data.trajectories import Trajectories
from dfplan.diffusion.levels import Drawn
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import NoiseSchedule
from dfplan.models import InverseDynamics, StepOutcomes, StepPlausibility, TokenValue, build
from dfplan.planning.draws import Mixture, unknown_padding, whole_goals
from dfplan.planning.jumps import largest_changes
from dfplan.planning.model_config import Condition, PlausibilityConfig, TrajectoryModelConfig
from dfplan.planning.order import Order
from dfplan.planning.patterns import draw_pattern
from dfplan.training.losses import total

__all__ = ["Batch", "PlausibilityConfig", "TrajectoryModel", "TrajectoryModelConfig"]

PERCENT = 100
"""Parts of the recorded returns that lie between two stored quantiles of them."""
INVERSE_PAIRS, PLAUSIBLE_STEPS, OUTCOMES = 8, 16, 64
"""How many of each window's steps are learned from in one batch."""
Recorded = tuple[Tensor, Tensor]
"""The first and the last recorded row of each window, (B, 1) each. Rows outside them are padded."""


class Batch(NamedTuple):
    """Windows of consecutive steps in recorded units, as `dfplan.data.queries.Queries` draws them."""

    observations: Tensor
    """(B, S, observation_dim), S = layout.steps(tokens)."""
    actions: Tensor
    """(B, S, action_dim)."""
    valid: Tensor | None = None
    """(B, T) which tokens were recorded whole; None: all."""
    goals: Tensor | None = None
    """(B, G) what is reached later."""
    paces: Tensor | None = None
    """(B,) reward for each step from the present on: see `dfplan.data.returns`."""


class TrajectoryModel(Statistics):
    """What is learned from recorded behavior alone: a diffusion of trajectories, and what else a config asks for."""

    former_names: ClassVar[Mapping[str, str]] = {"critic.": "plausibility."}
    """Beginnings of the names that tensors have in older files, and what they are now."""
    former_config: ClassVar[Mapping[str, Any]] = {"plausibility": {"noise": [0.08, 0.6], "gain": 3.0}}
    """Fields of the config that older files lack, and what they were."""
    inverse: InverseDynamics | None
    outcomes: StepOutcomes | None
    plausibility: StepPlausibility | None
    value: TokenValue | None
    order: Order | None
    largest: Tensor
    longest: Tensor
    returns: Tensor

    def __init__(self, config: TrajectoryModelConfig):
        layout = config.layout
        super().__init__(layout.observation_dim, layout.action_dim)
        self.config = config
        network = build(config.width, config.levels, config.model, config.part_of)
        schedule = NoiseSchedule(config.schedule, config.levels)
        self.diffusion = Diffusion(network, schedule, config.prediction, config.weighting)
        self.inverse = self.outcomes = self.plausibility = self.value = self.order = None
        if config.inverse:
            self.inverse = InverseDynamics(layout.observation_dim, layout.action_dim, config.longest_gap)
        judge = config.plausibility
        if judge is not None:
            self.plausibility = StepPlausibility(len(config.judged), noise=judge.noise, gain=judge.gain)
        if config.outcomes:
            self.outcomes = StepOutcomes(layout.observation_dim, layout.action_dim, config.outcomes)
        if config.value is not None:
            self.value = TokenValue(layout.width, config.levels, config.value)
        if config.kinds:
            self.order = Order(config.goal_groups, config.kinds)
        if config.missing:
            self.register_buffer("largest", torch.zeros(layout.observation_dim))
        self.learns_returns = config.value is not None or "return" in config.condition
        if self.learns_returns:
            self.pace = Normalizer.standard(1)
            self.register_buffer("longest", torch.ones(()))
        if "return" in config.condition:
            self.register_buffer("returns", torch.zeros(PERCENT + 1))
        self.draw = Mixture(config.draws)

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizers, action limits and, where returns are learned, their units from the data, before training."""
        super().fit_statistics(data)
        if self.order is not None:
            self.order.fit(data, self.config.goal_columns)
        if self.config.missing:
            self.largest = largest_changes(data)
        if self.learns_returns:
            self.pace = Normalizer.fit(returns_to_go(data)[:, None])
            self.longest = torch.tensor(float((data.episode_ends - data.episode_starts).max()))
        if "return" in self.config.condition:
            quantiles = np.quantile(data.returns, np.linspace(0, 1, PERCENT + 1))
            self.returns = torch.as_tensor(quantiles, dtype=torch.float32)

    def return_at(self, quantile: float) -> float:
        """A quantile, 0 to 1, of the returns of the recorded episodes, of models that are asked for returns."""
        return float(np.interp(quantile * PERCENT, np.arange(PERCENT + 1), self.returns.cpu().numpy()))

    def forward(self, batch: Sequence[Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of one batch, to be minimized together under 'loss'."""
        batch, config = Batch(*batch), self.config
        observations, actions = self.observation.normalize(batch.observations), self.action.normalize(batch.actions)
        x0, shape = config.layout.pack(observations, actions), (len(observations), config.tokens)
        valid = torch.ones(shape, dtype=torch.bool, device=x0.device) if batch.valid is None else batch.valid
        longest = valid.long().cumsum(1).argmax(1, keepdim=True)  # the last token that was recorded
        drawn = unknown_padding(self._drawn(*shape, generator, longest), valid, config.levels)
        first = (valid.long().argmax(1, keepdim=True) - 1).clamp(min=0) * config.layout.stride
        recorded = first, longest * config.layout.stride
        losses = {}
        if config.parts:
            given = self._given(batch)
            sequence, levels = draw_pattern(config, x0, drawn, valid, given, generator)
        else:
            levels = whole_goals(drawn)
            sequence = config.layout.as_states(x0, drawn.goal)  # as planning shows a goal: nothing of the way there
        losses["diffusion"] = self.diffusion.loss(sequence, levels, generator)
        if self.inverse is not None:
            losses["inverse"] = inverse_loss(self.inverse, observations, actions, recorded, generator)
        if self.plausibility is not None:
            losses["plausibility"] = self._plausibility_loss(self.plausibility, observations, recorded, generator)
        if self.outcomes is not None:
            losses["outcomes"] = self._outcomes_loss(self.outcomes, observations, actions, recorded, generator)
        if self.value is not None:
            losses["value"] = self._value_loss(self.value, x0, drawn, batch, generator)
        return total(losses)

    def _drawn(self, batch: int, tokens: int, generator: torch.Generator, longest: Tensor) -> Drawn:
        """Levels (B, T) of training sequences: drawn from the present on, because all before it is known or absent."""
        past = self.config.history
        drawn = self.draw(batch, tokens - past, self.config.levels, generator, longest - past)
        return Drawn(*(torch.cat([torch.zeros_like(part[:, :1]).expand(-1, past), part], 1) for part in drawn))

    def _given(self, batch: Batch) -> dict[Condition, Tensor]:
        """What the condition token may hold: ValueError for a batch without it."""
        wanted = self.config.condition
        if ("goal" in wanted and batch.goals is None) or (self.learns_returns and batch.paces is None):
            raise ValueError("this model learns from batches of observations, actions, valid, goals and paces")
        paces = None if "return" not in wanted or batch.paces is None else batch.paces * self.longest
        return self.normalized(batch.goals if "goal" in wanted else None, paces)

    def normalized(self, goal: Tensor | None, return_: Tensor | None) -> dict[Condition, Tensor]:
        """What plans are asked for, in recorded units, as normalized: goals (B, G), and returns (B,) as paces (B, 1).

        A return is the sum of rewards of an episode of the longest recorded length.
        """
        given: dict[Condition, Tensor] = {}
        if goal is not None:
            given["goal"] = self.normalize_goal(goal, self.config.goal_columns)
        if return_ is not None:
            given["return"] = self.pace.normalize((return_ / self.longest).unsqueeze(-1))
        return given

    def _plausibility_loss(
        self, plausibility: StepPlausibility, observations: Tensor, recorded: Recorded, generator: torch.Generator
    ) -> Tensor:
        """The loss of a few random steps of each window, one token long."""
        stride = self.config.layout.stride
        places = observations[..., list(self.config.judged)]
        row, start = _random_starts(PLAUSIBLE_STEPS, recorded, stride, generator)
        return plausibility.loss(places[row, start].flatten(0, 1), places[row, start + stride].flatten(0, 1), generator)

    def _outcomes_loss(
        self,
        outcomes: StepOutcomes,
        observations: Tensor,
        actions: Tensor,
        recorded: Recorded,
        generator: torch.Generator,
    ) -> Tensor:
        """The loss of a few random steps of each window."""
        row, start = _random_starts(OUTCOMES, recorded, 1, generator)
        before, action, after = observations[row, start], actions[row, start], observations[row, start + 1]
        return outcomes.loss(before.flatten(0, 1), action.flatten(0, 1), after.flatten(0, 1))

    def _value_loss(
        self, value: TokenValue, x0: Tensor, drawn: Drawn, batch: Batch, generator: torch.Generator
    ) -> Tensor:
        """The loss of the plans in the windows, from the present on, as noisy as they were drawn."""
        assert batch.paces is not None
        x0, k = x0[:, self.config.history :], drawn.k[:, self.config.history :]
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        return value.loss(
            self.diffusion.schedule.add_noise(x0, k, eps), k, self.pace.normalize(batch.paces[:, None])[:, 0]
        )


def inverse_loss(
    inverse: InverseDynamics, observations: Tensor, actions: Tensor, recorded: Recorded, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the action at a few random steps of each window, normalized observations and actions (B, S, ...),
    for a target a random gap ahead."""
    (B, S, _), (first, last) = observations.shape, recorded
    longest = min(inverse.longest_gap, S - 1)
    gap = torch.randint(1, longest + 1, (B, INVERSE_PAIRS), generator=generator, device=observations.device)
    gap = torch.minimum(gap, last - first).clamp(min=1)
    row, start = _random_starts(INVERSE_PAIRS, recorded, gap, generator)
    guess = inverse(observations[row, start].flatten(0, 1), observations[row, start + gap].flatten(0, 1), gap.flatten())
    return (guess - actions[row, start].flatten(0, 1)).square().mean()


def _random_starts(
    each: int, recorded: Recorded, gap: int | Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows (B, 1) of windows and `each` starts (B, each) in them, uniform among those with a recorded row `gap` steps later."""
    first, last = recorded
    B, device, count = len(first), first.device, (last - first + 1 - gap).clamp(min=1)
    start = (torch.rand((B, each), generator=generator, device=device, dtype=torch.float32) * count).long()
    return torch.arange(B, device=device).unsqueeze(1), first + start
