"""D4RL's point mass on MuJoCo: the model and one step of it.

The figures are D4RL's (`maze_model.py`): a sphere of radius 0.1 and density 1000 on two damped slides, pushed by two
motors of gear 100, among boxes one unit wide, 0.01 s a step. Its start is at +1.2 and the walls at +1, hence the
shift of `layouts.WALL_SHIFT` between cells and walls.
"""

from __future__ import annotations

import numpy as np

from dfplan.envs.maze.engine import mujoco
from dfplan.envs.maze.layouts import Layout

MAX_SPEED = 5.0
"""Each velocity component is clipped to this before every step, in units a second."""

TIMESTEP = 0.01
"""Seconds a step."""

_FULL = mujoco.mjtState.mjSTATE_INTEGRATION

_MODEL = """
<mujoco model="maze2d">
  <compiler angle="radian" inertiafromgeom="true"/>
  <option timestep="0.01" gravity="0 0 0" integrator="Euler" iterations="20"/>
  <default>
    <joint damping="1" limited="false"/>
    <geom friction="0.5 0.1 0.1" density="1000" margin="0.002" condim="1" contype="2" conaffinity="1"/>
  </default>
  <worldbody>
    <geom name="ground" type="plane" size="40 40 0.25" pos="0 0 -0.1" contype="1" conaffinity="0"/>
    <body name="particle" pos="1.2 1.2 0">
      <geom type="sphere" size="0.1" contype="1"/>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
    </body>
    {walls}
  </worldbody>
  <actuator>
    <motor joint="x" gear="100" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="y" gear="100" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


def model_text(layout: Layout) -> str:
    """The MJCF text of the maze."""
    box = '<geom type="box" pos="{:.1f} {:.1f} 0" size="0.5 0.5 0.2"/>'
    return _MODEL.format(walls="\n    ".join(box.format(i + 1, j + 1) for i, j in np.argwhere(layout.walls)))


class PointMass:
    """A particle in a maze. The state is four floats (x, y, vx, vy); plain floats, because this is the inner loop."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._model = mujoco.MjModel.from_xml_string(model_text(layout))
        self._data = mujoco.MjData(self._model)
        self._qpos, self._qvel, self._ctrl = self._data.qpos, self._data.qvel, self._data.ctrl  # views

    def __getstate__(self) -> tuple[Layout, np.ndarray]:
        """For copy and pickle: MuJoCo's full state, the solver's memory included: a copy goes on bit for bit."""
        state = np.empty(mujoco.mj_stateSize(self._model, _FULL))
        mujoco.mj_getState(self._model, self._data, state, _FULL)
        return self._layout, state

    def __setstate__(self, saved: tuple[Layout, np.ndarray]) -> None:
        layout, state = saved
        self.__init__(layout)  # type: ignore[misc]  # the views must look into the new data
        mujoco.mj_setState(self._model, self._data, state, _FULL)

    def set_state(self, x: float, y: float, vx: float, vy: float) -> None:
        """Put the particle somewhere and forget the solver's memory, so that a state determines its future."""
        mujoco.mj_resetData(self._model, self._data)
        self._qpos[:] = x, y
        self._qvel[:] = vx, vy

    def step(self, ax: float, ay: float) -> tuple[float, float, float, float]:
        """Clip the velocity, push for one step of 0.01 s, and return the new (x, y, vx, vy).

        Forces are clipped to [-1, 1]. The actuators do so themselves, but MuJoCo takes beyond 1e10 for a mistake: no force.
        """
        qvel = self._qvel
        vx, vy = qvel.tolist()
        if not (-MAX_SPEED <= vx <= MAX_SPEED and -MAX_SPEED <= vy <= MAX_SPEED):
            qvel[0] = min(max(vx, -MAX_SPEED), MAX_SPEED)
            qvel[1] = min(max(vy, -MAX_SPEED), MAX_SPEED)
        self._ctrl[0] = min(max(ax, -1.0), 1.0)
        self._ctrl[1] = min(max(ay, -1.0), 1.0)
        mujoco.mj_step(self._model, self._data)
        x, y = self._qpos.tolist()
        vx, vy = qvel.tolist()
        return x, y, vx, vy
