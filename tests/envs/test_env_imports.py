import os
import subprocess
import sys

import pytest


def printed(*lines):
    """What a program of these lines prints, in a process of its own."""
    return subprocess.check_output([sys.executable, "-c", "\n".join(lines)], text=True).strip()


def test_importing_the_environments_registers_them_and_loads_neither_torch_nor_mujoco():
    assert printed(
        "import sys, gymnasium, dfplan.envs, dfplan.envs.reference",
        "assert 'maze2d-large-v1' in gymnasium.registry and 'multi2d-umaze-v1' in gymnasium.registry",
        "print([name for name in ('torch', 'mujoco', 'minari') if name in sys.modules])",
    ) == "[]"  # fmt: skip


def test_stepping_and_collecting_never_load_torch():
    setup = "import sys, gymnasium, dfplan.envs, dfplan.envs.collect, dfplan.envs.maze.expert"
    reset = "gymnasium.make('maze2d-umaze-v1').reset()"
    assert printed(setup, reset, "print('mujoco' in sys.modules, 'torch' in sys.modules)") == "True False"


@pytest.mark.parametrize("value", ["osmesa", "egl", "glfw", "nonsense", "disable", ""])
def test_physics_needs_no_opengl(value, tmp_path):
    """An OpenGL package whose import fails stands for the library that is not there."""
    (tmp_path / "OpenGL.py").write_text("raise AttributeError('no library')")
    program = (
        "import os, gymnasium, numpy, dfplan.envs, dfplan.envs.maze.rollouts\n"
        "env = gymnasium.make('maze2d-umaze-v1')\n"
        "env.reset(seed=0); env.step(numpy.ones(2))\n"
        "print(os.environ['MUJOCO_GL'], os.environ.get('PYOPENGL_PLATFORM'))"
    )
    environment = os.environ | {"MUJOCO_GL": value, "PYTHONPATH": str(tmp_path)}
    environment.pop("PYOPENGL_PLATFORM", None)
    assert subprocess.check_output([sys.executable, "-c", program], text=True, env=environment) == f"{value} None\n"


def test_rendering_by_mujoco_is_left_as_it_was():
    names = "print(sorted(name for name in dir(mujoco) if 'GL' in name or 'Render' in name))"
    ours = subprocess.check_output([sys.executable, "-c", f"from dfplan.envs.maze.engine import mujoco; {names}"])
    assert ours == subprocess.check_output([sys.executable, "-c", f"import mujoco; {names}"])
