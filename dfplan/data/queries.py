"""Batches for models that are asked by patterns of noise levels: windows with what may be asked of them."""

from __future__ import annotations

import numpy as np

from dfplan.data.goals import hindsight
from dfplan.data.padded_windows import PaddedWindows
from dfplan.data.returns import returns_to_go
from dfplan.data.trajectories import BoolArray, FloatArray, Trajectories


class Queries:
    """Windows as of `PaddedWindows`, each with a goal that was reached later and the pace of reward from the present on.

    `goal_within` is the largest number of steps between the present and its goal, which stands in `goal_columns` of an
    observation; 0 where no goals are drawn.
    Raises what `PaddedWindows` raises, and ValueError for data without goal columns where goals are drawn.
    """

    def __init__(
        self,
        data: Trajectories,
        tokens: int,
        stride: int,
        history: int = 0,
        goal_within: int = 0,
        goal_columns: tuple[int, ...] = (),
    ):
        self.data, self.goal_within, self.goal_columns = data, goal_within, goal_columns
        self.windows = PaddedWindows(data, tokens, stride, history)
        self.paces = returns_to_go(data)
        if goal_within and not goal_columns:
            raise ValueError(f"{data.name}: there are no goal columns; load the data with goal=(...).")

    def sample(
        self, rng: np.random.Generator, batch_size: int
    ) -> tuple[FloatArray, FloatArray, BoolArray, FloatArray, FloatArray]:
        """Drawn uniformly with replacement, in recorded units: observations (B, S, D), actions (B, S, A), valid (B, T), goals
        (B, G), with G = 0 where none are drawn, and paces (B,)."""
        observations, actions, valid, now = self.windows.sample(rng, batch_size)
        goals = np.zeros((batch_size, 0), np.float32)
        if self.goal_within:
            goals = hindsight(self.data, now, rng, self.goal_within, self.goal_columns)
        return observations, actions, valid, goals, self.paces[now]
