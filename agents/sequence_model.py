"""What full-sequence diffusion planners learn from: windows as tokens, with normalisers, limits and returns.

A full-sequence planner denoises all tokens of a plan of fixed length together, from one shared noise level. Diffuser
(`dfplan.agents.diffuser`) and Decision Diffuser (`dfplan.agents.decision_diffuser`) say the rest: what is known of a
plan, what steers it, and how actions come from it. Not to be confused with Diffusion Forcing, where every token has a
level of its own and a plan any length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dfplan.data.statistics import Normalizer
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import FloatArray, IntArray, Trajectories, next_observations, stops
from dfplan.data.windows import BatchSource
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


class ReturnWindows:
    """Windows of `length` consecutive steps with the sum of their rewards.

    They stay inside one episode, but where the task terminates: there nothing is to be gained or lost any more, so a
    window goes on at rest in what was observed last, with actions and rewards of 0. Without that, the steps before an
    early end would be in no window, and the end would cost nothing.

    `starts` (W,) are the flat indices at which windows begin. Raises ValueError if there is none.
    """

    def __init__(self, data: Trajectories, length: int):
        self.data, self.length = data, length
        steps, self._stops = np.arange(len(data)), stops(data)
        self.starts: IntArray = np.flatnonzero((steps + length <= self._stops) | data.terminations[self._stops - 1])
        self._total = np.concatenate([[0.0], np.cumsum(data.rewards, dtype=np.float64)])
        if not len(self.starts):
            longest = int((self._stops - steps).max())
            raise ValueError(
                f"{data.name}: no episode is long enough for a window of {length} steps; the longest has {longest}."
            )

    def __len__(self) -> int:
        """Number of windows W."""
        return len(self.starts)

    def recorded(self, starts: IntArray) -> IntArray:
        """(B,) starts -> (B,) how many steps of each window were recorded: `length`, or fewer up to a termination."""
        return np.minimum(self._stops[starts] - starts, self.length)

    def returns(self, starts: IntArray) -> NDArray[np.float64]:
        """(B,) starts -> (B,) sums of the rewards recorded in the windows."""
        return self._total[starts + self.recorded(starts)] - self._total[starts]

    def sample(self, rng: np.random.Generator, batch_size: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Windows drawn uniformly with replacement: observations (B, length, obs_dim), actions (B, length, act_dim),
        returns (B,) and recorded steps (B,)."""
        starts = self.starts[rng.integers(len(self), size=batch_size)]
        recorded, step = self.recorded(starts)[:, None], np.arange(self.length)
        index = starts[:, None] + np.minimum(step, recorded - 1)
        observations, actions = self.data.observations[index], self.data.actions[index]
        row, past = np.nonzero(step >= recorded)
        observations[row, past] = next_observations(self.data, index[:, -1])[row]
        actions[row, past] = 0
        return observations, actions, self.returns(starts).astype(np.float32), recorded[:, 0].astype(np.float32)


class SequenceModel(nn.Module):
    """Normalisers, limits and training windows of a full-sequence planner; its networks and loss are a subclass's."""

    action_low: Tensor
    action_high: Tensor
    best_return: Tensor

    def __init__(self, config: SequenceConfig):
        super().__init__()
        self.config = config
        layout = config.layout
        self.observation = Normalizer(torch.zeros(layout.observation_dim), torch.ones(layout.observation_dim))
        self.action = Normalizer(torch.zeros(layout.action_dim), torch.ones(layout.action_dim))
        self.returns = Normalizer(torch.zeros(1), torch.ones(1))
        self.schedule = NoiseSchedule(config.schedule, config.levels)
        self.register_buffer("action_low", -torch.ones(layout.action_dim))
        self.register_buffer("action_high", torch.ones(layout.action_dim))
        self.register_buffer("best_return", torch.ones(()))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalisers, action limits and the best return of a window from the data, before training."""
        self.observation = Normalizer.fit(data.observations)
        self.action = Normalizer.fit(data.actions)
        self.action_low = torch.from_numpy(data.actions.min(axis=0))
        self.action_high = torch.from_numpy(data.actions.max(axis=0))
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

    def state_at(self, goal: Tensor) -> Tensor:
        """Normalised observations (B, observation_dim) at goals (B, G); other columns are at the data's mean."""
        wished = self.observation.mean.repeat(len(goal), 1)
        wished[:, list(self.config.goal_columns)] = goal
        return self.observation.normalize(wished)

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
