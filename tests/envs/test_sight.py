import types

import gymnasium
import numpy as np
import pytest

from dfplan.envs import sight
from dfplan.envs.maze.engine import mujoco
from dfplan.envs.maze.env import Maze2dEnv
from dfplan.envs.maze.render import _PARTICLE

BALL = np.array([0.3, -0.2, 0.4])
SCENE = """<mujoco><worldbody><light pos="0 0 3"/>
<camera name="front" pos="0.2 -2 1" xyaxes="1 0.1 0 -0.03 0.3 1"/>
<geom type="sphere" size="0.05" pos="0.3 -0.2 0.4" rgba="1 0 0 1"/></worldbody></mujoco>"""


def test_a_place_in_a_maze_lies_where_its_picture_shows_it():
    env = Maze2dEnv(maze="umaze")
    env.reset(seed=0, options={"state": [3.0, 1.2, 0.0, 0.0]})
    seen = sight.of(env)
    (x, y), frame = seen.pixels(np.array([3.0, 1.2])), seen.frame()
    assert frame[round(y), round(x)].tolist() == list(_PARTICLE)
    assert seen.pixels(np.zeros((5, 3, 2))).shape == (5, 3, 2)


def test_a_place_in_a_scene_lies_where_its_camera_shows_it():
    model = mujoco.MjModel.from_xml_string(SCENE)
    scene = types.SimpleNamespace(model=model, data=mujoco.MjData(model))
    mujoco.mj_forward(model, scene.data)
    try:
        seen = sight.of(types.SimpleNamespace(unwrapped=scene), side=200)
    except ValueError as error:
        pytest.skip(str(error))
    red = seen.frame()[..., 0].astype(float)
    rows, columns = np.indices(red.shape)
    shown = np.array([(columns * red).sum(), (rows * red).sum()]) / red.sum() + 0.5
    np.testing.assert_allclose(seen.pixels(BALL), shown, atol=1.5)
    assert seen.pixels(np.stack([BALL, BALL]))[1] == pytest.approx(seen.pixels(BALL))
    seen.close()


def test_what_is_neither_a_maze_nor_a_scene_is_refused():
    with pytest.raises(ValueError, match="neither a maze nor a scene of MuJoCo"):
        sight.of(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("set_already", "found", "expected"),
    [({}, "libOSMesa.so", "osmesa"), ({}, None, None), ({"DISPLAY": ":0"}, "libOSMesa.so", None),
     ({"MUJOCO_GL": "egl"}, "libOSMesa.so", "egl")],
)  # fmt: skip
def test_a_library_is_chosen_only_where_nothing_else_draws(monkeypatch, set_already, found, expected):
    monkeypatch.setattr(sight.os, "environ", dict(set_already))
    monkeypatch.setattr(sight.sys, "platform", "linux")
    monkeypatch.setattr(sight, "find_library", lambda name: found)
    monkeypatch.setattr(sight, "DEVICES", ())
    sight.without_display()
    assert sight.os.environ.get("MUJOCO_GL") == expected
