"""Lengths of shortest ways through a maze: a continuous field of distances to a goal.

The particle's center keeps off walls by its radius, so each wall box grows by it. Shortest ways among boxes are straight
from corner to corner (visibility graph, Lozano-Perez & Wesley 1979), so distances at grid points are exact; between
them they are interpolated. Not to be confused with `expert.distance_field`, which counts moves from cell to cell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse.csgraph import dijkstra

from dfplan.envs.maze.layouts import WALL_SHIFT, Layout
from dfplan.envs.maze.rollouts import RADIUS
from dfplan.envs.real_arrays import real_array

PITCH = 0.1
"""Of the grid. It divides every coordinate of a grown wall, so that no grid square is half wall."""
_EPSILON = 1e-6  # walls shrink by this, so that their faces are free
_CHUNK = 200_000  # pairs of point and wall that are tested at once

Array = NDArray[np.float64]


class Geodesic:
    """`geodesic(points, goals)`: lengths, in cells, of the shortest ways from points to goals that touch no wall.

    norm: 2 is Euclidean length. inf (Chebyshev) counts the longer of a straight piece's two components: divided by
    `physics.MAX_SPEED`, which limits each component of the velocity by itself, it is the least time of the way if there
    were no inertia. Shortest ways bend at corners in either norm.

    Fields are made when a goal is first met (milliseconds), and kept. Inside a wall the field goes on as at the nearest
    free point for one `PITCH`, because contacts are soft and particles sink in a little; deeper, and where no way leads, it
    is larger than anywhere else, so that no way through a wall looks short.
    """

    def __init__(self, layout: Layout, norm: float = 2) -> None:
        if norm not in (2, np.inf):
            raise ValueError(f"the norm of a way's pieces is 2 or inf, not {norm!r}")
        self._norm = norm
        self._walls = _grown_walls(layout)
        axes = [WALL_SHIFT - 0.5 + PITCH * np.arange(round(cells / PITCH) + 1) for cells in layout.shape]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        self._low, self._high = grid[0, 0], grid[-1, -1]
        self._free = ~_inside(grid.reshape(-1, 2), self._walls).reshape(grid.shape[:2])
        self._points = grid[self._free]
        depth, nearest = distance_transform_edt(~self._free, sampling=PITCH, return_indices=True)
        self._depth, self._nearest = depth, tuple(nearest)
        corners = _corners(layout)
        self._corners = corners[~_inside(corners, self._walls)]
        self._to_points = self._sight(self._corners, self._points)
        straight = self._sight(self._corners, self._corners)
        self._between = dijkstra(straight, directed=False) if len(self._corners) else straight  # inf is no edge
        self._fields: dict[tuple[float, float], Array] = {}

    def __call__(self, points: ArrayLike, goals: ArrayLike) -> Array:
        """Distances (...) of points (..., 2) to one goal (2,), or (B, ...) of points (B, ..., 2) to goals (B, 2).

        Raises ValueError for other shapes, for NaN and infinity, and for a goal inside a wall or outside the maze.
        """
        at = real_array("distances need finite points (..., 2)", points)
        aims = real_array("distances need finite goals (2,) or (B, 2)", goals)
        batched = aims.ndim == 2 and at.ndim >= 2 and len(at) == len(aims)
        if at.shape[-1:] != (2,) or aims.shape[-1:] != (2,) or not (aims.ndim == 1 or batched):
            raise ValueError(
                f"distances need points (..., 2) and a goal (2,), or (B, ..., 2) and (B, 2), got {at.shape} and {aims.shape}"
            )
        if not batched:
            return _interpolate(self.field(aims)[None], at[None])[0]
        return _interpolate(np.stack([self.field(goal) for goal in aims]), at)

    def field(self, goal: ArrayLike) -> Array:
        """Distances to one goal (2,) at all grid points, (X, Y). ValueError for a goal inside a wall or outside the maze."""
        x, y = real_array("a goal is two finite numbers (x, y)", goal, (2,)).tolist()
        if (x, y) not in self._fields:
            self._fields[x, y] = self._field(np.array([[x, y]]))
        return self._fields[x, y]

    def _field(self, goal: Array) -> Array:
        if (goal[0] < self._low).any() or (goal[0] > self._high).any():
            raise ValueError(f"the goal {goal[0].tolist()} lies outside the maze")
        if _inside(goal, self._walls)[0]:
            # The particle's center cannot get there, but it may get near: the goal's cell is free up to the wall itself.
            gaps = np.linalg.norm(self._points - goal, axis=1)
            if gaps.min() > RADIUS + PITCH:
                raise ValueError(f"the goal {goal[0].tolist()} lies inside a wall of the maze")
            goal = self._points[gaps.argmin()][None]
        distance = self._sight(goal, self._points)[0]
        if len(self._corners):
            to_corner = (self._sight(goal, self._corners)[0][:, None] + self._between).min(axis=0)
            distance = np.minimum(distance, (to_corner[:, None] + self._to_points).min(axis=0))
        field = np.full(self._free.shape, np.inf)
        field[self._free] = distance
        farthest = 2 * distance[np.isfinite(distance)].max() + 1
        field[~np.isfinite(field)] = farthest
        field = field[self._nearest] + self._depth
        field[self._depth > 1.5 * PITCH] = farthest
        return field

    def _sight(self, starts: Array, ends: Array) -> Array:
        """Straight distances (S, E) from starts (S, 2) to ends (E, 2), inf where a wall is between."""
        distance = np.linalg.norm(starts[:, None] - ends, ord=self._norm, axis=-1)
        rows = max(1, _CHUNK // max(1, len(ends)))
        for first in range(0, len(starts), rows):
            part = slice(first, first + rows)
            for wall in self._walls:
                distance[part][_crosses(starts[part, None], ends[None], wall)] = np.inf
        return distance


def _grown_walls(layout: Layout) -> Array:
    """(W, 4) x_min, x_max, y_min, y_max: runs of wall cells along either axis as one box each, grown by the radius."""
    boxes = []
    for walls, transposed in ((layout.walls, False), (layout.walls.T, True)):
        for i, line in enumerate(walls):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
            for first, end in edges.reshape(-1, 2):
                span = (i - 0.5, i + 0.5, first - 0.5, end - 0.5)
                boxes.append((*span[2:], *span[:2]) if transposed else span)
    grow = RADIUS - _EPSILON
    return np.array(boxes) + WALL_SHIFT + np.array([-grow, grow, -grow, grow])


def _corners(layout: Layout) -> Array:
    """(C, 2): the corners of grown walls around which a way may bend."""
    walls = np.pad(layout.walls, 1, constant_values=True)
    corners = []
    for i, j in np.argwhere(layout.walls):
        for di in (-1, 1):
            for dj in (-1, 1):
                around = walls[i + 1 + di, j + 1], walls[i + 1, j + 1 + dj], walls[i + 1 + di, j + 1 + dj]
                if not any(around):
                    corners.append((i + di * (0.5 + RADIUS), j + dj * (0.5 + RADIUS)))
    return np.array(corners, dtype=np.float64).reshape(-1, 2) + WALL_SHIFT


def _inside(points: Array, walls: Array) -> NDArray[np.bool_]:
    x, y = points[:, :1], points[:, 1:]
    return np.asarray(((x > walls[:, 0]) & (x < walls[:, 1]) & (y > walls[:, 2]) & (y < walls[:, 3])).any(axis=1))


def _crosses(start: Array, end: Array, wall: Array) -> NDArray[np.bool_]:
    """Whether the segments from start (..., 2) to end (..., 2) pass through a box: the slab test."""
    with np.errstate(divide="ignore"):
        inverse = 1.0 / (end - start)
    x0, x1 = (wall[0] - start[..., 0]) * inverse[..., 0], (wall[1] - start[..., 0]) * inverse[..., 0]
    y0, y1 = (wall[2] - start[..., 1]) * inverse[..., 1], (wall[3] - start[..., 1]) * inverse[..., 1]
    enter = np.maximum(np.maximum(np.minimum(x0, x1), np.minimum(y0, y1)), 0.0)
    leave = np.minimum(np.minimum(np.maximum(x0, x1), np.maximum(y0, y1)), 1.0)
    return np.asarray(enter < leave)


def _interpolate(fields: Array, points: Array) -> Array:
    """Bilinear values (B, ...) of fields (B, X, Y) at points (B, ..., 2); beyond the grid, those of its edge."""
    B, X, Y = fields.shape
    place = (points - (WALL_SHIFT - 0.5)) * (1 / PITCH)
    px, py = np.clip(place[..., 0], 0, X - 1), np.clip(place[..., 1], 0, Y - 1)
    i, j = np.minimum(px.astype(np.intp), X - 2), np.minimum(py.astype(np.intp), Y - 2)
    u, v = px - i, py - j
    flat = fields.ravel()
    corner = np.arange(B).reshape(B, *[1] * (points.ndim - 2)) * (X * Y) + i * Y + j
    low = flat[corner] * (1 - v) + flat[corner + 1] * v
    high = flat[corner + Y] * (1 - v) + flat[corner + Y + 1] * v
    return low * (1 - u) + high * u
