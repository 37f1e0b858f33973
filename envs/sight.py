"""Pictures of an environment's scene, and where in them places of its world lie.

A maze is drawn as by its own `render`. Any other scene of MuJoCo is drawn through a camera of its model, or MuJoCo's free
camera if it has none, in any size. An environment's own `render` does not say where its camera stands.
"""

from __future__ import annotations

import os
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from dfplan.envs.maze.render import pixels as maze_pixels

CAMERAS = ("front", "table", "track", "external_camera_0")
"""Names of cameras, the first of which is used that a model has: OGBench's, the memory task's, Gymnasium's robots', Fetch's."""
DEVICES = ("/dev/dri/renderD128", "/dev/nvidia0")
"""Where Linux has a graphics processor."""


class Sight(Protocol):
    """Draws an episode that has been reset."""

    def frame(self) -> NDArray[np.uint8]:
        """The scene now, (height, width, 3)."""

    def pixels(self, places: NDArray[Any]) -> NDArray[Any]:
        """Where places (..., 2 or 3) of the world lie in a frame: (..., 2), to the right and down, from its corner."""

    def close(self) -> None:
        """Free the renderer."""


def of(env: gymnasium.Env[Any, Any], side: int = 320) -> Sight:
    """The sight of an environment, `side` pixels along each side where it is no maze.

    Raises ValueError for one that is neither a maze nor a scene of MuJoCo, and where OpenGL cannot draw without a display.
    """
    from dfplan.envs.maze.env import Maze2dEnv  # late: it imports MuJoCo, see below

    scene: Any = env.unwrapped
    if isinstance(scene, Maze2dEnv):
        return MazeSight(scene)
    scene = getattr(scene, "table", scene)
    if not (hasattr(scene, "model") and hasattr(scene, "data")):
        raise ValueError(f"{env} cannot be seen: it is neither a maze nor a scene of MuJoCo")
    return CameraSight(scene, side)


def without_display() -> None:
    """Let MuJoCo draw without a display where there is none, unless MUJOCO_GL says how; to be called before it is imported."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"} & os.environ.keys():
        library = "EGL" if any(Path(name).exists() for name in DEVICES) else "OSMesa"
        if find_library(library) is not None:
            os.environ["MUJOCO_GL"] = library.lower()


class MazeSight:
    """A maze from above."""

    def __init__(self, scene: Any):
        self._scene = scene

    def frame(self) -> NDArray[np.uint8]:
        """As of `Sight`."""
        picture: NDArray[np.uint8] = self._scene.picture()
        return picture

    def pixels(self, places: NDArray[Any]) -> NDArray[Any]:
        """As of `Sight`."""
        return maze_pixels(places)

    def close(self) -> None:
        """As of `Sight`."""


class CameraSight:
    """A scene of MuJoCo through a camera."""

    def __init__(self, scene: Any, side: int):
        from dfplan.envs.maze.engine import mujoco  # late, as above

        self._data, model = scene.data, scene.model
        model.vis.global_.offwidth, model.vis.global_.offheight = side, side
        named = {model.camera(i).name: i for i in range(model.ncam)}
        self._camera = next((named[name] for name in CAMERAS if name in named), -1)
        try:
            self._renderer = mujoco.Renderer(model, side, side)
        except Exception as error:  # whatever an OpenGL library raises
            how = "pictures need OpenGL without a display: set MUJOCO_GL to egl or osmesa"
            raise ValueError(f"{how} ({type(error).__name__}: {error})") from error
        self._side = side
        self._look()

    def frame(self) -> NDArray[np.uint8]:
        """As of `Sight`."""
        self._look()
        picture: NDArray[np.uint8] = self._renderer.render()
        return picture

    def pixels(self, places: NDArray[Any]) -> NDArray[Any]:
        """As of `Sight`."""
        left, right = self._renderer.scene.camera  # two eyes at one place
        forward, up = np.array(left.forward), np.array(left.up)
        away = np.asarray(places) - (np.array(left.pos) + np.array(right.pos)) / 2
        depth = np.maximum(away @ forward, left.frustum_near) / left.frustum_near
        half = (left.frustum_top - left.frustum_bottom) / 2  # of the near plane, which is as wide as high
        across, above = away @ np.cross(forward, up) / depth, away @ up / depth
        middle = (left.frustum_top + left.frustum_bottom) / 2
        return self._side * (0.5 + np.stack([across, middle - above], axis=-1) / (2 * half))

    def close(self) -> None:
        """As of `Sight`."""
        self._renderer.close()

    def _look(self) -> None:
        self._renderer.update_scene(self._data, camera=self._camera)
