"""Diffusion Policy (Chi et al. 2023, "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion"), whole in this file.

A temporal U-Net denoises the next actions, and actions only, given the last observations: they scale and shift the features of
every block (FiLM). For a long history a transformer can take its place, in which actions attend to observations. Some of the
actions are played, then the next ones are drawn. A goal is one more input. It is imitation: no reward is read and no state is
predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dfplan.agents.base import LearningAgent
from dfplan.arrays import Shape
from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.queries import Queries
from dfplan.data.statistics import Statistics, Widths
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import Batch, BatchSource
from dfplan.diffusion import matrices
from dfplan.diffusion.levels import shared
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import NoiseSchedule, Prediction
from dfplan.diffusion.sampler import sample
from dfplan.fields import Size, SizeOrZero, check_columns
from dfplan.models import Conditioned, Decoder, DecoderConfig, TemporalUNet, UNetConfig
from dfplan.planning.full_sequence import SamplingConfig
from dfplan.training.losses import total


@dataclass(frozen=True)
class DiffusionPolicyConfig(Widths):
    """What is learned, and how large."""

    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal stands; none: the policy is given no goal."""
    goal_within: SizeOrZero = 0
    """Goals of training were observed 1 to this many steps later."""
    observed: Size = 2
    """T_o: the last observations that actions are drawn from."""
    every: Size = 1
    """Steps from one of these to the next."""
    predicted: Size = 16
    """T_p: actions that are drawn at once."""
    network: UNetConfig = field(default_factory=lambda: UNetConfig(width=64, multiples=(1, 2), film=True))
    """The U-Net over time that denoises them."""
    decoder: DecoderConfig | None = None
    """The transformer that denoises them instead, for a long history; None: the U-Net does."""
    levels: Size = 100
    """K: the level of pure noise."""
    prediction: Prediction = "v"
    """What the network predicts."""
    features: Features = AS_RECORDED
    """How what an environment observes becomes the observations of the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.goal_columns, self.observation_dim, "goal_columns")
        if bool(self.goal_columns) != bool(self.goal_within):
            raise ValueError("goals need both goal_columns and goal_within, got only one of them")

    @property
    def history(self) -> int:
        """Steps from the first to the last of the observations that actions are drawn from."""
        return (self.observed - 1) * self.every


@dataclass(frozen=True)
class PolicyConfig(SamplingConfig):
    """How a diffusion policy acts."""

    steps: Size = 10
    executed: Size = 8
    """T_a: actions that are played before the next ones are drawn."""


class DiffusionPolicyModel(Statistics):
    """p(a_t, ..., a_{t + T_p - 1} | o_{t - T_o + 1}, ..., o_t, goal), actions scaled to [-1, 1].

    Observations are those of all L = history + 1 steps, of which every `every`-th is seen.
    """

    def __init__(self, config: DiffusionPolicyConfig):
        super().__init__(config.observation_dim, config.action_dim, scale_actions=True)
        self.config = config
        shape, goal, sizes = (config.observed, config.observation_dim), len(config.goal_columns), config.decoder
        self.network: nn.Module = (
            TemporalUNet(config.action_dim, config.levels, config.network, shape[0] * shape[1] + goal)
            if sizes is None
            else Decoder(config.action_dim, config.levels, sizes, shape, goal)
        )
        self.schedule = NoiseSchedule("cosine", config.levels)

    def given(self, observations: Tensor, goals: Tensor | None = None) -> Diffusion:
        """The diffusion of actions given the last observations (B, L, D) and goals (B, G), in recorded units."""
        y = self.observation.normalize(observations[:, :: self.config.every]).flatten(1)
        if goals is not None:
            y = torch.cat([y, self.normalize_goal(goals, self.config.goal_columns)], dim=1)
        return Diffusion(Conditioned(self.network, y), self.schedule, self.config.prediction, "uniform")

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """E ||eps - f(a^k, k, o, goal)||^2 in terms of what is predicted; actions that were not recorded are not counted."""
        (observations, actions, valid, *goals), now = batch, self.config.history
        a = self.scale_action(actions[:, now:-1])
        drawn = shared(a.shape[0], a.shape[1], self.config.levels, generator)
        drawn = drawn._replace(counted=drawn.counted & (valid[:, now + 1 :] > 0))
        diffusion = self.given(observations[:, : now + 1], *goals)
        return total({"diffusion": diffusion.loss(a, drawn, generator)})

    def draw(self, observations: Tensor, goals: Tensor | None, how: PolicyConfig, generator: torch.Generator) -> Tensor:
        """Actions (B, T_p, A) from the last observations (B, L, D) and goals (B, G), all in recorded units."""
        shape = len(observations), self.config.predicted, self.config.action_dim
        matrix = matrices.full_sequence(shape[1], self.config.levels, how.steps)
        noise: dict[str, Any] = {"eta": how.eta, "temperature": how.temperature}
        drawn = sample(self.given(observations, goals), matrix, shape, generator, **noise)
        return self.unscale_action(drawn.tokens.clamp(-1, 1))


class DiffusionPolicyAgent(LearningAgent):
    """Draws a chunk of actions, plays the first of them, and draws the next chunk; each row by a clock of its own."""

    kind = "diffusion_policy"
    learner_class, learner_config_class, config_class = DiffusionPolicyModel, DiffusionPolicyConfig, PolicyConfig
    config: PolicyConfig
    execution = "diffused actions"

    def _fit_learner(self) -> None:
        made, executed = self.learner.config, self.config.executed
        if executed > made.predicted:
            raise ValueError(f"of {made.predicted} predicted actions at most these can be executed, got {executed}")
        self.goal_dim, self.needs_goal = len(made.goal_columns), bool(made.goal_columns)

    def _begin(self) -> None:
        self._seen: Tensor | None = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        if self._seen is not None:
            self._clock[rows] = -1

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        now, goal = self._tensor(batch).unsqueeze(1), self._tensor(goals)
        if self._seen is None:
            shape = len(batch), self.learner.config.predicted, self.learner.config.action_dim
            self._seen, self._chunk = now.repeat(1, self.learner.config.history + 1, 1), now.new_zeros(shape)
            self._clock = torch.full((len(batch),), -1, device=self.device)
        begins = (self._clock < 0)[:, None, None]  # before an episode its first observation repeats
        self._seen = torch.where(begins, now, torch.cat([self._seen[:, 1:], now], dim=1))
        due = (begins.flatten() | (self._clock >= self.config.executed)).nonzero().squeeze(1)
        if len(due):
            with torch.autocast(self.device.type, torch.bfloat16):
                asked = None if goal is None else goal[due]
                self._chunk[due] = self.learner.draw(self._seen[due], asked, self.config, self._generator)
            self._clock[due] = 0
        action = self._chunk[torch.arange(len(batch), device=self.device), self._clock]
        self._clock += 1
        return action.cpu().numpy()

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """As `windows` draws them: S = L + T_p steps, and as many tokens of one step."""
        made = self.learner.config
        S = made.history + 1 + made.predicted
        parts: dict[str, Shape] = {"observations": ("B", S, made.observation_dim), "actions": ("B", S, made.action_dim)}
        return parts | {"valid": ("B", S)} | ({"goals": ("B", len(made.goal_columns))} if made.goal_columns else {})


def windows(data: Trajectories, config: DiffusionPolicyConfig) -> BatchSource:
    """What a policy of this config learns from: observations, actions and `valid` of `Queries` of single steps, and goals if
    it is given any."""
    tokens = config.history + 1 + config.predicted
    queries = Queries(data, tokens, 1, config.history, config.goal_within, config.goal_columns)

    def batch(rng: np.random.Generator, batch_size: int) -> Batch:
        observations, actions, valid, goals, _ = queries.sample(rng, batch_size)
        return observations, actions, valid.astype(np.float32), *([goals] if config.goal_columns else [])

    return batch
