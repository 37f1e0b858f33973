"""Goals in hindsight: what was reached later in the same episode, and how much later is far enough."""

import math

import numpy as np

from dfplan.data.recorded import bounds, observations_at
from dfplan.data.trajectories import FloatArray, IntArray, Trajectories
from dfplan.fields import check_columns

LAGS = 64
"""How many lags `mixing_steps` looks at."""
PAIRS = 8192
"""How many pairs of observations it draws at each."""
REACHED = 0.9
"""Share of the plateau that counts as mixed."""


def hindsight(
    data: Trajectories,
    now: IntArray,
    rng: np.random.Generator,
    longest: int | IntArray,
    columns: tuple[int, ...] | None = None,
) -> FloatArray:
    """(B, G): for each step `now` (B,) the goal columns of an observation 1 to `longest` steps, (B,) or one for all, later in
    its episode.

    `columns` are those of the data's features unless they are given. All that were recorded among these are equally likely; the
    observation after an episode's last action is one.

    Raises ValueError if the data have no goal columns, `longest` is below 1, or nothing was recorded after a step.
    """
    columns = data.features.goal_columns if columns is None else columns
    if not columns:
        raise ValueError(f"{data.name}: the data have no goal columns; load them with goal=(...).")
    if np.min(longest) < 1:
        raise ValueError(f"Goals must lie at least 1 step ahead, not {np.min(longest)}.")
    episodes, _, last = bounds(data, now)
    left = np.minimum(last - now, longest)
    if (left < 1).any():
        raise ValueError(f"{data.name}: nothing was recorded after step {now[np.argmax(left < 1)]}.")
    return observations_at(data, episodes, now + rng.integers(1, left + 1))[:, list(columns)]


def mixing_steps(data: Trajectories, columns: tuple[int, ...]) -> int:
    """After how many steps these columns of an observation have changed as much as they ever do within an episode.

    It is the smallest lag at which the mean squared change, each column in its own deviations, is 90% of its plateau: the
    mean over all pairs at least half the longest episode apart. It is estimated from random pairs, by the same seed each time.

    Raises ValueError for columns that do not exist or never change, and where no episode has two observations.
    """
    check_columns(columns, data.observations.shape[1], "columns")
    spread = data.observations[:, list(columns)].std(axis=0, dtype=np.float64)
    moving = np.asarray(columns, int)[spread > 0]
    if not len(moving):
        raise ValueError(f"{data.name}: the goal's columns {tuple(columns)} never change.")
    scale = spread[spread > 0]
    rng = np.random.default_rng(0)
    rows = data.episode_ends - data.episode_starts + (data.last_observations is not None)
    longest = int(rows.max()) - 1
    if longest < 1:
        raise ValueError(f"{data.name}: no episode has two observations.")
    lags = np.unique(np.geomspace(1, longest, LAGS).round().astype(int))
    changes = np.array([_change(data, rows - lag, int(lag), moving, scale, rng) for lag in lags])
    far = 2 * lags >= longest
    there = [np.maximum(rows - lag, 0).sum() for lag in lags[far]]  # few pairs are that far apart: they weigh little
    level = REACHED * np.average(changes[far], weights=there)
    if not level:
        raise ValueError(f"{data.name}: the goal's columns {tuple(columns)} never change within an episode.")
    at = int(np.argmax(changes >= level))
    if at == 0:
        return int(lags[0])
    between = (level - changes[at - 1]) / (changes[at] - changes[at - 1])
    return math.ceil(lags[at - 1] + between * (lags[at] - lags[at - 1]))


def _change(
    data: Trajectories, starts: IntArray, lag: int, columns: IntArray, scale: np.ndarray, rng: np.random.Generator
) -> float:
    """Mean squared change over `lag` steps of random pairs, of which `starts` (E,) begin in each episode."""
    counted = np.cumsum(np.maximum(starts, 0))
    numbers = rng.integers(counted[-1], size=PAIRS)
    episodes = np.searchsorted(counted, numbers, side="right")
    first = data.episode_starts[episodes] + numbers - np.append(0, counted)[episodes]
    before, after = (observations_at(data, episodes, rows)[:, columns] for rows in (first, first + lag))
    return float((((after.astype(np.float64) - before) / scale) ** 2).mean())
