"""What full-sequence diffusion planners learn from: windows as tokens, with normalisers, limits and returns.

A full-sequence planner denoises all tokens of a plan of fixed length together, from one shared noise level. Diffuser
(`dfplan.agents.diffuser`) and Decision Diffuser (`dfplan.agents.decision_diffuser`) say the rest: what is known of a
plan, what steers it, and how actions come from it. Not to be confused with Diffusion Forcing, where every token has a
level of its own and a plan any length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from dfplan.data.statistics import Normalizer, Statistics
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import BatchSource, ReturnWindows
from dfplan.diffusion.noise import NoiseSchedule, Prediction, ScheduleName
from dfplan.diffusion.sampler import Sample
from dfplan.fields import Size, check_columns, check_fields
from dfplan.models import UNetConfig


@dataclass(frozen=True)
class SequenceConfig:
    layout: TokenLayout
    """Which columns of a token are observation and action, and how many steps it covers."""
    tokens: Size = 48
    """T: a plan is always T tokens, the start among them, and so (T - 1) * stride environment steps long."""
    towards: Literal["goal", "return"] = "goal"
    """Plan to a goal that is given at each reset, or for a high return of the recorded task."""
    goal_columns: tuple[int, ...] = (0, 1)
    """Observation columns in which a goal is given."""
    network: UNetConfig = field(default_factory=UNetConfig)
    """The temporal U-Net that denoises."""
    schedule: ScheduleName = "cosine"
    """How alpha_bar falls with the level."""
    levels: Size = 256
    """K: the level of pure noise."""
    prediction: Prediction = "x0"
    """What the network is asked for."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.tokens < 3:
            raise ValueError(f"a plan needs a start, an end and a token between them, got tokens={self.tokens}")
        check_columns(self.goal_columns, self.layout.observation_dim, "goal_columns")
        if not self.goal_columns:
            raise ValueError("goal_columns must name at least one column of the observation")

    @property
    def steps(self) -> int:
        """Environment steps that a plan covers."""
        return (self.tokens - 1) * self.layout.stride


class SequenceModel(Statistics):
    """Units, limits and training windows of a full-sequence planner; its networks and loss are a subclass's."""

    best_return: Tensor

    def __init__(self, config: SequenceConfig):
        super().__init__(config.layout.observation_dim, config.layout.action_dim)
        self.config = config
        self.returns = Normalizer.standard(1)
        self.schedule = NoiseSchedule(config.schedule, config.levels)
        self.register_buffer("best_return", torch.ones(()))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizers, action limits and the best return of a window from the data, before training."""
        super().fit_statistics(data)
        windows = ReturnWindows(data, self.config.steps + 1)
        returns = windows.returns(windows.starts)
        self.returns = Normalizer.fit(returns[:, None])
        self.best_return = torch.tensor(float(returns.max()))

    def batches(self, data: Trajectories) -> BatchSource:
        """Batches of random windows: observations (B, S, observation_dim), actions (B, S, action_dim), returns (B,), and
        how many of the window's steps were recorded (B,): see `ReturnWindows`."""
        return ReturnWindows(data, self.config.steps + 1).sample

    def plan_to(
        self, observation: Tensor, goal: Tensor | None, config: Any, generator: torch.Generator, record: bool = False
    ) -> SequencePlan:
        """A plan from each observation (B, observation_dim), towards goals (B, G) in recorded units where it needs one."""
        raise NotImplementedError

    def states_of(self, tokens: Tensor) -> Tensor:
        """Observations (B, T, kept, observation_dim) in recorded units of normalised tokens (B, T, C)."""
        layout = self.config.layout
        states = tokens[..., : layout.observation_width].unflatten(-1, (layout.kept, layout.observation_dim))
        return self.observation.denormalize(states)

    def plan_of(self, drawn: Sample) -> SequencePlan:
        """Sampled tokens as a plan in recorded units."""
        layout, tokens = self.config.layout, drawn.tokens
        return SequencePlan(
            observations=self.states_of(tokens),
            actions=self.action.denormalize(layout.unpack_actions(tokens)) if layout.actions else None,
            lengths=torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device),
            history=[(self.states_of(x), k) for x, k in drawn.history],
        )


@dataclass(frozen=True)
class SequencePlan:
    """Plans in recorded units, all of one length."""

    observations: Tensor
    """(B, T, kept, observation_dim): token 0 is the start."""
    actions: Tensor | None
    """(B, (T - 1) * stride, action_dim) diffused actions, where the tokens hold actions."""
    lengths: Tensor
    """(B,) tokens after the start: T - 1."""
    history: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """For each row of sampling, if it was recorded: observations (B, T, kept, observation_dim), levels (B, T)."""
