"""Many rollouts of the maze's physics at once: what a planner that is given the true dynamics asks for.

Away from walls MuJoCo's step is one line of arithmetic (Euler with implicit damping), computed here for all rows
together; rows that may touch a wall take a step of MuJoCo's own (`mujoco.rollout`). Not to be confused with
`physics.PointMass`, which steps one particle and remembers the solver's last solution; here every step of a contact is
solved from nothing, so that the two agree up to the solver's tolerance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplan.envs.maze.engine import mujoco
from dfplan.envs.maze.layouts import WALL_SHIFT, Layout
from dfplan.envs.maze.physics import MAX_SPEED, TIMESTEP, model_text
from dfplan.envs.real_arrays import real_array

RADIUS = 0.1
"""Of the particle, in cells."""
_REACH = RADIUS + 0.004  # MuJoCo makes contacts from 0.002 for each of the two bodies before they touch
_PITCH = 0.02  # of the table that says where walls are near
_DAMPING, _GEAR = 1.0, 100.0


class Rollouts:
    """`rollouts(states (N, 4), actions (N, H, 2)) -> (N, H, 4)`: row n starts at `states[n]`, its h-th result is
    the state after `actions[n, :h + 1]`. float64; state (x, y, vx, vy), forces clipped to [-1, 1] by the actuators.

    Raises ValueError for arrays of other shapes or with NaN or infinity.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._model = mujoco.MjModel.from_xml_string(model_text(layout))
        self._data = [mujoco.MjData(self._model)]
        self._rollout = mujoco.rollout.Rollout(nthread=0)
        self._near = _near_walls(layout)
        self._gain = TIMESTEP / (float(self._model.dof_M0[0]) + TIMESTEP * _DAMPING)  # of a force on a velocity

    def __reduce__(self) -> tuple[type[Rollouts], tuple[Layout]]:
        """Pickled and copied as what it was made of: MuJoCo's threads are neither."""
        return type(self), (self._layout,)

    def __call__(self, states: ArrayLike, actions: ArrayLike) -> NDArray[np.float64]:
        """The states (N, H, 4) that follow. ValueError for other shapes, and for NaN or infinity."""
        state = real_array("rollouts need finite states (N, 4)", states, (None, 4))
        action = real_array("rollouts need finite actions (N, H, 2)", actions, (None, None, 2))
        if len(action) != len(state):
            raise ValueError(f"rollouts need as many rows of actions as of states, got {len(action)} and {len(state)}")
        force = _GEAR * np.clip(action.swapaxes(0, 1), -1.0, 1.0)  # (H, N, 2)
        path = np.empty((len(force), len(state), 4))
        position, velocity = state[:, :2], state[:, 2:]
        for h in range(len(force)):
            velocity = np.clip(velocity, -MAX_SPEED, MAX_SPEED)
            after = path[h]
            after[:, 2:] = velocity + self._gain * (force[h] - _DAMPING * velocity)
            after[:, :2] = position + TIMESTEP * after[:, 2:]
            touching = np.flatnonzero(self._near[_index(position, self._near.shape)])
            if len(touching):
                after[touching] = self._contact(position[touching], velocity[touching], force[h, touching] / _GEAR)
            position, velocity = after[:, :2], after[:, 2:]
        return path.swapaxes(0, 1)

    def _contact(
        self, position: NDArray[np.float64], velocity: NDArray[np.float64], control: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """One step of MuJoCo's for n particles: states (n, 4)."""
        n = len(position)
        before = np.concatenate([np.zeros((n, 1)), position, velocity], axis=1)  # time comes first
        after = np.empty((n, 1, 5))
        self._rollout.rollout(
            [self._model] * n,
            self._data,
            before,
            control[:, None],
            skip_checks=True,
            nstep=1,
            initial_warmstart=np.zeros((n, 2)),
            state=after,
            sensordata=np.empty((n, 1, 0)),
        )
        return after[:, 0, 1:]


def _near_walls(layout: Layout) -> NDArray[np.bool_]:
    """Squares of side `_PITCH` over the whole maze: True where one of their points may touch a wall (generously)."""
    shape = tuple(round(cells / _PITCH) for cells in layout.shape)
    low = [WALL_SHIFT - 0.5 + _PITCH * np.arange(n) for n in shape]
    near = np.zeros(shape, dtype=bool)
    for x_min, x_max, y_min, y_max in layout.wall_boxes():
        along_x = (low[0] + _PITCH >= x_min - _REACH) & (low[0] <= x_max + _REACH)
        along_y = (low[1] + _PITCH >= y_min - _REACH) & (low[1] <= y_max + _REACH)
        near |= along_x[:, None] & along_y
    return near


def _index(position: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Squares of the table in which positions (N, 2) lie; beyond the maze, those of its border, which is a wall."""
    square = ((position - (WALL_SHIFT - 0.5)) * (1 / _PITCH)).astype(np.intp)
    return np.clip(square[:, 0], 0, shape[0] - 1), np.clip(square[:, 1], 0, shape[1] - 1)
