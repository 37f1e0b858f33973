"""Batches for models that are asked by patterns of noise levels: windows with what may be asked of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfplan.data.configurations import at_rest, change_together, changes, cluster, until_another, until_the_second
from dfplan.data.goals import hindsight
from dfplan.data.padded_windows import PaddedWindows
from dfplan.data.returns import returns_to_go
from dfplan.data.things import ALONE, exchanges, one_at_a_time
from dfplan.data.trajectories import BoolArray, FloatArray, IntArray, Trajectories


class Queries:
    """Windows as of `PaddedWindows`, each with a goal that was reached later and the pace of reward from the present on.

    `goal_within` is the largest number of steps between the present and its goal, which stands in `goal_columns` of an
    observation; 0 where no goals are drawn. With `groups`, most goals are of one thing alone and NaN elsewhere; with `alike`,
    all are, that thing is the first one (see `dfplan.data.things`), and no goal is later than another thing's first move.
    With `kinds`, no goal lies beyond the second change of a configuration, and what one change changes is asked for together
    (see `dfplan.data.configurations`). `evenly` is as of `PaddedWindows`.
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
        groups: Sequence[int] = (),
        alike: Sequence[Sequence[int]] = (),
        kinds: Sequence[int] = (),
        evenly: tuple[int, ...] = (),
    ):
        self.data, self.goal_within, self.goal_columns = data, goal_within, goal_columns
        self.windows = PaddedWindows(data, tokens, stride, history, evenly)
        self.paces = returns_to_go(data)
        if goal_within and not goal_columns:
            raise ValueError(f"{data.name}: there are no goal columns; load the data with goal=(...).")
        self.groups, self.history = groups, history * stride
        if groups:
            self.spread = data.observations[:, list(goal_columns)].std(axis=0) + 1e-6
        self.limits: IntArray | None = None
        self.together: BoolArray | None = None
        if kinds:
            found = changes(data, goal_columns, groups, cluster(data, goal_columns, groups, kinds))
            self.limits = np.minimum(until_the_second(data, found), goal_within)
            self.together = change_together(data, found, kinds)
        elif alike:
            self.limits = np.minimum(until_another(at_rest(data, goal_columns, groups)), goal_within)
        self.exchanges = (
            (exchanges(alike, range(data.observations.shape[1])), exchanges(alike, goal_columns)) if alike else None
        )

    def sample(
        self, rng: np.random.Generator, batch_size: int
    ) -> tuple[FloatArray, FloatArray, BoolArray, FloatArray, FloatArray]:
        """Drawn uniformly with replacement, in recorded units: observations (B, S, D), actions (B, S, A), valid (B, T), goals
        (B, G), with G = 0 where none are drawn, and paces (B,)."""
        observations, actions, valid, now = self.windows.sample(rng, batch_size)
        goals = np.zeros((batch_size, 0), np.float32)
        if self.goal_within:
            within = self.goal_within if self.limits is None else self.limits[now]
            goals = hindsight(self.data, now, rng, within, self.goal_columns)
        if self.groups:
            present = observations[:, self.history, list(self.goal_columns)]
            share = ALONE if self.exchanges is None else 1.0
            together = None if self.together is None else self.together[now]
            goals, which = one_at_a_time(goals, present, self.groups, self.spread, rng, share, together)
            if self.exchanges is not None:
                seen, asked = (table[which] for table in self.exchanges)
                observations = np.take_along_axis(observations, seen[:, None], axis=2)
                goals = np.take_along_axis(goals, asked, axis=1)
        return observations, actions, valid, goals, self.paces[now]
