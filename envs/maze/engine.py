"""MuJoCo for its physics alone, imported whatever the environment says about rendering.

MuJoCo's import loads the OpenGL library that MUJOCO_GL names, and fails where there is none or the name is unknown,
although no step needs one. Then it is imported without rendering, and the variables are left as they were.
"""

from __future__ import annotations

import os

_VARIABLES = ("MUJOCO_GL", "PYOPENGL_PLATFORM")  # MuJoCo's import sets the second


def _load() -> None:
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        import mujoco
    except Exception:  # whatever an OpenGL library raises
        os.environ["MUJOCO_GL"] = "disable"
        try:
            import mujoco  # noqa: F401
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


_load()
import mujoco  # noqa: E402
import mujoco.rollout  # noqa: E402

__all__ = ["mujoco"]
