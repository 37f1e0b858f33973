"""The waypoint expert that made D4RL's maze data (its `waypoint_controller.py`, as a recipe).

Walk the grid from the start's cell to the goal's along a shortest path, aim at each cell's center moved by
-uniform(0, 0.2) along each axis (the last one exactly), and steer with a PD controller: 10 (waypoint - position) -
velocity, clipped to [-1, 1]. A waypoint counts as reached within 0.1, and so does the goal.

It drives to the center of the goal's *cell*, not to the goal's exact coordinates, as D4RL's does. The path comes from
a breadth-first distance field; D4RL iterates Q values on the grid, which yields the same paths, because both prefer,
among equally short ones, the earliest move in `_MOVES`. The start's cell is the one between whose walls the particle
lies; D4RL rounds the coordinates, which names a wall when the particle leans on one (and then walks on from there).
"""

from __future__ import annotations

from collections import deque
from math import hypot

import numpy as np

from dfplan.envs.maze.layouts import Layout
from dfplan.envs.real_arrays import real_array

P_GAIN, D_GAIN = 10.0, -1.0
REACHED = 0.1
"""A waypoint is reached within this distance, if the last step was shorter than `SLOW`."""
SLOW = 0.1
"""Largest displacement in one step at which a waypoint may count as reached."""
JITTER = 0.2
_MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))


def distance_field(layout: Layout, goal: tuple[int, int]) -> np.ndarray:
    """Integer array of the layout's shape: number of moves to the goal's cell, -1 where there is no way."""
    rows, columns = layout.shape
    if not (0 <= goal[0] < rows and 0 <= goal[1] < columns) or layout.walls[goal]:
        raise ValueError(f"the goal's cell {goal} is not a free cell of the maze")
    field = np.full(layout.shape, -1, dtype=np.int64)
    field[goal] = 0
    queue = deque([goal])
    while queue:
        i, j = queue.popleft()
        for di, dj in _MOVES:
            cell = i + di, j + dj
            if not layout.walls[cell] and field[cell] < 0:
                field[cell] = field[i, j] + 1
                queue.append(cell)
    return field


def shortest_path(field: np.ndarray, start: tuple[int, int]) -> list[tuple[int, int]]:
    """Cells after `start` on the way down a distance field; the goal's own cell when already there.

    Raises ValueError if no way leads from the start to the goal.
    """
    if not (0 <= start[0] < field.shape[0] and 0 <= start[1] < field.shape[1]) or field[start] < 0:
        raise ValueError(f"no way leads from cell {start} to the goal's cell")
    path, cell = [], start
    while field[cell] > 0:
        neighbors = ((cell[0] + di, cell[1] + dj) for di, dj in _MOVES)
        cell = next(neighbor for neighbor in neighbors if field[neighbor] == field[cell] - 1)
        path.append(cell)
    return path or [start]


class Driver:
    """The expert for one particle, in plain floats; new waypoints are drawn when the goal's cell changes."""

    def __init__(self, layout: Layout, rng: np.random.Generator) -> None:
        self._layout = layout
        self._rng = rng
        self._fields: dict[tuple[int, int], np.ndarray] = {}
        self._goal: tuple[int, int] | None = None
        self._waypoints: list[tuple[float, float]] = []
        self._index = 0
        self._last = (0.0, 0.0)

    def _route(self, x: float, y: float, goal: tuple[int, int]) -> None:
        if goal not in self._fields:
            self._fields[goal] = distance_field(self._layout, goal)
        start = self._layout.cell_of(x, y)
        cells = shortest_path(self._fields[goal], start)
        jitter = (self._rng.random((len(cells) - 1, 2)) * JITTER).tolist()
        self._waypoints = [(i - dx, j - dy) for (i, j), (dx, dy) in zip(cells[:-1], jitter, strict=True)]
        self._waypoints.append((float(goal[0]), float(goal[1])))
        self._goal, self._index, self._last = goal, 0, (float(start[0]), float(start[1]))

    def act(self, x: float, y: float, vx: float, vy: float, goal: tuple[int, int]) -> tuple[float, float, bool]:
        """The action at a state for a goal's cell, and whether the goal is reached there."""
        if goal != self._goal:
            self._route(x, y, goal)
        slow = hypot(self._last[0] - x, self._last[1] - y) < SLOW
        self._last = x, y
        solved = slow and hypot(x - goal[0], y - goal[1]) < REACHED
        wx, wy = self._waypoints[-1 if solved else self._index]
        dx, dy = wx - x, wy - y
        if slow and not solved and hypot(dx, dy) < REACHED:
            self._index += 1  # never past the last one: reaching that is solving the task
        ax, ay = P_GAIN * dx + D_GAIN * vx, P_GAIN * dy + D_GAIN * vy
        return min(max(ax, -1.0), 1.0), min(max(ay, -1.0), 1.0), solved


class WaypointExpert:
    """The expert with an agent's face: `reset(goal, seed)` then `act(observation)`.

    Serves one observation (4,) or a batch (B, 4); a batch has one driver a row, each with its own random stream.
    It is given the maze's map, which a learned agent is not.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.reset()

    def reset(self, goal: np.ndarray | None = None, seed: int | None = None) -> None:
        """Start an episode towards `goal`, (2,) or one for each row (B, 2); None is the maze's own goal.

        Raises ValueError for anything else.
        """
        given = self.layout.goal if goal is None else goal
        goals = real_array("a goal is (x, y) or a batch (B, 2) of finite numbers", given, (2,), (None, 2))
        self._goals = goals
        self._seeds = np.random.SeedSequence(seed)
        self._drivers: list[Driver] = []

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Action (2,) for an observation (4,), or actions (B, 2) for a batch (B, 4); float32 in [-1, 1].

        Raises ValueError for another shape, for NaN and infinity, for as many goals as do not fit the rows, and where no way
        leads to the goal.
        """
        expected = "an observation is (x, y, vx, vy) or a batch (B, 4) of finite numbers"
        batch = real_array(expected, observation, (4,), (None, 4))
        states = np.atleast_2d(batch)
        if self._goals.ndim == 2 and len(self._goals) not in (1, len(states)):
            raise ValueError(f"the goals have {len(self._goals)} rows, but the observations {len(states)}")
        if not self._drivers:
            self._drivers = [Driver(self.layout, np.random.default_rng(s)) for s in self._seeds.spawn(len(states))]
        if len(states) != len(self._drivers):
            raise ValueError(f"the batch has {len(states)} rows, but had {len(self._drivers)}; call reset between")
        goals = np.broadcast_to(self._goals, (len(states), 2)).tolist()
        actions = [
            driver.act(x, y, vx, vy, self.layout.cell_of(*goal))[:2]
            for driver, (x, y, vx, vy), goal in zip(self._drivers, states.tolist(), goals, strict=True)
        ]
        return np.array(actions, dtype=np.float32).reshape(*batch.shape[:-1], 2)
