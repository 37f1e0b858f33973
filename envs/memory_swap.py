"""`memory-swap-v0`: an arm exchanges two objects over three places, and the present does not show how far it has come.

A UR5e with a gripper (OGBench's model, with its inverse kinematics) stands at a table with three places. A cube and a can
stand on two of them; the third is spare. The task is to exchange the two in three moves, each from rest to rest: the cube to
the spare place, the can to where the cube was, the cube to where the can was. After each move the gripper returns to the pose
in which it began, and after the last it stays there: success is that each object has stood where the other began for `HELD`
steps in which the open gripper rested.

Nothing in an observation tells the four times at rest apart. The cube is moved after the first, the can after the second, the
cube after the third, and nothing after the fourth, and each of the six ways to place two objects occurs as each of the four.
Only what was seen before decides what to do. This is the robot task of Chen et al. 2024 (their arm exchanges two fruits) in
simulation.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from ogbench.manipspace import lie
from ogbench.manipspace.envs.manipspace_env import ManipSpaceEnv

Floats = NDArray[np.float64]
OBJECTS = ("cube", "can")
PLACES: Floats = np.array([[0.425, -0.15], [0.425, 0.0], [0.425, 0.15]])
"""Of the three places, in meters."""
REST: Floats = np.array([0.35, 0.0, 0.2])
"""Of the gripper at rest, in meters."""
SPREAD = 0.012
"""Objects begin, and are put down by demonstrations, within so many meters of a place along each axis."""
NEAR, AT_REST = 0.035, 0.04
"""Meters from a place within which an object stands there, and from `REST` within which the gripper rests."""
HELD = 8
"""Steps of rest that end an episode with success."""
HEIGHT = 0.02
"""Of the middle of an object that stands, in meters: both are twice as high."""
REACH = 0.05
"""Meters that the gripper moves along an axis by an action of 1."""
SCALE = 10.0
"""Lengths are observed in tenths of a meter."""
CAMERA = 64
"""Pixels of a camera's picture along each side."""
SAMPLES = 2
"""Pixels that are drawn for each of these along each side, and averaged."""
_MIDDLE = np.array([0.425, 0.0, 0.0])
_LOWEST, _HIGHEST = np.array([0.25, -0.3, HEIGHT]), np.array([0.6, 0.3, 0.3])  # of what corrupted observations show
_SEEN_FROM = {"pos": (1.0, 0.0, 0.75), "xyaxes": (0.0, 1.0, 0.0, -0.756, 0.0, 0.655), "fovy": 26.0}
_PLAIN, _HIDDEN = 3, 4
"""Groups of shapes: those that collide, of which the arm has fewer than of others, and what a camera does not show."""
_COLORS = {"cube": (0.96, 0.26, 0.33, 1.0), "can": (0.35, 0.55, 0.91, 1.0)}
_SHAPES: dict[str, dict[str, Any]] = {
    "cube": {"type": "box", "size": (0.02, 0.02, HEIGHT)},
    "can": {"type": "cylinder", "size": (0.02, HEIGHT)},
}


class Table(ManipSpaceEnv):
    """The arm, the objects and the camera, without a task."""

    _renderer: Any

    def __init__(self, side: int, disk: bool):
        """`side`: pixels of a picture along each side. `disk`: whether there is something that moves before the camera."""
        super().__init__(mode="data_collection", control_timestep=0.1, width=side, height=side)
        self._with_disk = disk
        self._plain = mujoco.MjvOption()
        self._plain.geomgroup[:] = [1, 1, 0, 1, 0, 0]
        self._plain.flags[mujoco.mjtVisFlag.mjVIS_CONVEXHULL] = 1

    def add_objects(self, arena_mjcf: Any) -> None:
        """The objects, the marks of the three places, the disk and the camera."""
        world = arena_mjcf.worldbody
        touch = {"friction": (1.0, 0.005, 0.0001), "condim": 4, "solimp": (0.95, 0.99, 0.001), "solref": (0.01, 1)}
        for name in OBJECTS:
            body = world.add("body", name=name, pos=(0.3, 0.0, HEIGHT))
            body.add("freejoint", name=f"{name}_joint")
            body.add("geom", name=name, density=500, rgba=_COLORS[name], **_SHAPES[name], **touch)
        unseen = {"contype": 0, "conaffinity": 0}
        for x, y in PLACES:
            world.add("geom", type="cylinder", size=(0.05, 0.0005), pos=(x, y, 0), rgba=(0.8, 0.8, 0.8, 1), **unseen)
        if self._with_disk:
            disk = world.add("body", name="disk", pos=(0.7, 0.0, 0.35), mocap=True)
            disk.add("geom", type="sphere", size=(0.05,), rgba=(0.1, 0.1, 0.1, 1), **unseen)
        world.add("camera", name="table", **_SEEN_FROM)

    def post_compilation_objects(self) -> None:
        """Find the joints of arm and objects, and the gripper's part that feels contact."""
        self._first = [self._model.joint(f"{name}_joint").qposadr[0] for name in OBJECTS]
        self._arm_dofs = self._model.jnt_dofadr[self._arm_joint_ids]
        self._pad = self._model.body("ur5e/robotiq/right_pad").id
        for number in range(self._model.ngeom):
            if self._model.geom(number).name.startswith("wall"):
                self._model.geom_group[number] = _HIDDEN

    def compute_observation(self) -> None:
        """Nothing: observations are the task's."""

    def compute_ob_info(self) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def begin(self, rng: np.random.Generator, starts: NDArray[np.int64]) -> None:
        """The gripper at rest, cube and can on these places."""
        self.reset()
        self._data.qpos[self._arm_joint_ids] = self._home_qpos
        mujoco.mj_kinematics(self._model, self._data)
        turned = lie.SO3.from_z_radians(np.pi / 2) @ self._effector_down_rotation
        at = REST + rng.uniform(-0.01, 0.01, 3)
        pose = lie.SE3.from_rotation_and_translation(turned, at) @ self._T_pa
        how = {"pos": pose.translation(), "quat": pose.rotation().wxyz, "curr_qpos": self._home_qpos}
        self._data.qpos[self._arm_joint_ids] = self._ik.solve(**how)
        for place, first in zip(starts, self._first, strict=True):
            self._data.qpos[first : first + 3] = [*PLACES[place] + rng.uniform(-SPREAD, SPREAD, 2), HEIGHT]
            self._data.qpos[first + 3 : first + 7] = lie.SO3.from_z_radians(rng.uniform(-0.1, 0.1)).wxyz
        mujoco.mj_forward(self._model, self._data)

    def advance(self, action: NDArray[Any], rng: np.random.Generator) -> None:
        """One step of the arm, and of the disk."""
        x, y, z, close = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        self.set_control(np.array([x, y, z, 0.0, close]))
        # The joints' targets make up for gravity, else the arm would sink.
        stiffness = self._model.actuator_gainprm[self._arm_actuator_ids, 0]
        self._data.ctrl[self._arm_actuator_ids] += self._data.qfrc_bias[self._arm_dofs] / stiffness
        if self._with_disk:
            place = self._data.mocap_pos[0]
            place[1:] = np.clip(place[1:] + rng.normal(0.0, 0.03, 2), (-0.15, 0.2), (0.15, 0.45))
        mujoco.mj_step(self._model, self._data, nstep=self._n_steps)
        mujoco.mj_rnePostConstraint(self._model, self._data)  # contact forces

    @property
    def gripper(self) -> Floats:
        """Its place (3), in meters, its opening (0 open, 1 closed) and its contact: (5,)."""
        opening = np.clip(self._data.qpos[self._gripper_opening_joint_id] / 0.8, 0, 1)
        contact = np.clip(np.linalg.norm(self._data.cfrc_ext[self._pad]) / 50, 0, 1)
        return np.array([*self._data.site_xpos[self._pinch_site_id], opening, contact])

    @property
    def objects(self) -> Floats:
        """The places of cube and can, (2, 3), in meters."""
        return np.array([self._data.qpos[first : first + 3] for first in self._first])

    def picture(self) -> NDArray[np.uint8]:
        """(side, side, 3), with all that makes it look well."""
        return np.asarray(self.render(camera="table"))

    def seen(self) -> NDArray[np.uint8]:
        """(side / SAMPLES, side / SAMPLES, 3): without shadows and with plain shapes of the arm.

        Without a graphics card this takes milliseconds where `picture` takes tenths of a second. Raises OSError where
        nothing can be drawn.
        """
        self._model.vis.quality.offsamples = 0  # read when the first picture is drawn
        try:
            drawn = np.asarray(self.render(camera="table", scene_option=self._plain, scene_callback=_without_shadows))
        except Exception as error:  # whatever an OpenGL that is not there raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OSError(f"no picture can be drawn here ({reason}): set MUJOCO_GL to egl or osmesa") from error
        side = drawn.shape[0] // SAMPLES
        return drawn.reshape(side, SAMPLES, side, SAMPLES, 3).mean((1, 3)).round().astype(np.uint8)

    def close(self) -> None:
        """Free what draws pictures."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _without_shadows(scene: Any) -> None:
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        scene.flags[flag] = 0


class MemorySwapEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """Observations (17,): the gripper's place (3), opening and contact; the places of cube and can (3 each), and the same as
    seen from the gripper. Lengths as of `SCALE`, places from the middle one on the table.

    Actions (4,) in [-1, 1]: the gripper's next move along each axis, by at most `REACH`; closing (1) and opening (-1). The
    reward is 1 at success, which ends the episode, else 0. `info` has `success`, `corrupted` and `at`: the places (2,) where
    cube and can stand, -1 for none.

    Args:
        observe: 'state', or 'camera' for a dictionary of 'camera' (64, 64, 3) uint8 and 'gripper' (5,).
        corrupted: Share of the observations that are corrupted, each for itself: a state shows random places of gripper and
            objects; a camera random colors, beside random numbers of the gripper.
        told: Corrupted observations are missing instead, which an agent can detect: all numbers are NaN, a picture is black.
        distractor: A dark ball moves between camera and table. Camera only.
        held: Steps of rest that end an episode with success.
        render_mode: 'rgb_array' or None.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # Gymnasium's own form

    def __init__(
        self,
        observe: Literal["state", "camera"] = "state",
        corrupted: float = 0.0,
        told: bool = False,
        distractor: bool = False,
        held: int = HELD,
        render_mode: str | None = None,
    ):
        if observe not in ("state", "camera"):
            raise ValueError(f"observe must be 'state' or 'camera', got {observe!r}")
        if not 0 <= corrupted <= 1:
            raise ValueError(f"corrupted must be a share from 0 to 1, got {corrupted}")
        if held < 1:
            raise ValueError(f"held must be at least 1 step, got {held}")
        if distractor and observe == "state":
            raise ValueError("distractor=True needs observe='camera': a state does not show it")
        self.table = Table(CAMERA * SAMPLES if observe == "camera" else 256, distractor)
        self.observe, self.corrupted, self.told = observe, corrupted, told
        self.held, self.render_mode = held, render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        if observe == "state":
            self.observation_space = spaces.Box(-np.inf, np.inf, (17,), np.float64)
        else:
            picture = spaces.Box(0, 255, (CAMERA, CAMERA, 3), np.uint8)
            gripper = spaces.Box(-np.inf, np.inf, (5,), np.float64)
            self.observation_space = spaces.Dict({"camera": picture, "gripper": gripper})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Two objects on two of the places, the gripper at rest."""
        super().reset(seed=seed)
        self.starts = self.np_random.permutation(len(PLACES))[: len(OBJECTS)]
        self.table.begin(self.np_random, self.starts)
        self.rested = 0
        observation, corrupted = self._observation()
        return observation, self._info(corrupted)

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A tenth of a second."""
        self.table.advance(action, self.np_random)
        exchanged, gripper = np.array_equal(self._at(), self.starts[::-1]), self.table.gripper
        rests = exchanged and np.linalg.norm(gripper[:3] - REST) < AT_REST and gripper[3] < 0.2
        self.rested = self.rested + 1 if rests else 0
        observation, corrupted = self._observation()
        info = self._info(corrupted)
        return observation, float(info["success"]), info["success"], False, info

    def render(self) -> NDArray[np.uint8] | None:
        """A picture of the table."""
        return self.table.picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free what draws pictures."""
        self.table.close()

    def _at(self) -> NDArray[np.int64]:
        return np.array([standing_at(place) for place in self.table.objects])

    def _info(self, corrupted: bool) -> dict[str, Any]:
        return {"success": self.rested >= self.held, "corrupted": corrupted, "at": self._at()}

    def _observation(self) -> tuple[Any, bool]:
        """What is observed of this step, and whether it is corrupted."""
        rng, gripper, places = self.np_random, self.table.gripper, self.table.objects
        corrupted = bool(self.corrupted and rng.uniform() < self.corrupted)
        if corrupted:
            gripper = np.array([*rng.uniform(_LOWEST, _HIGHEST), *rng.uniform(0.0, 1.0, 2)])
            places = rng.uniform(_LOWEST, _HIGHEST, (2, 3))
        own = np.array([*(gripper[:3] - _MIDDLE) * SCALE, *gripper[3:]])
        missing = corrupted and self.told
        if self.observe == "camera":
            if corrupted:
                shape = (CAMERA, CAMERA, 3)
                picture = np.zeros(shape, np.uint8) if missing else rng.integers(0, 256, shape, np.uint8)
            else:
                picture = self.table.seen()
            return {"camera": picture, "gripper": np.full_like(own, np.nan) if missing else own}, corrupted
        seen = [own, ((places - _MIDDLE) * SCALE).ravel(), ((places - gripper[:3]) * SCALE).ravel()]
        observation = np.concatenate(seen)
        return np.full_like(observation, np.nan) if missing else observation, corrupted


def standing_at(place: Floats) -> int:
    """The number of the place on which an object at (3,) stands; -1 for none."""
    away = np.linalg.norm(PLACES - place[:2], axis=1)
    nearest = int(away.argmin())
    return nearest if away[nearest] < NEAR and abs(place[2] - HEIGHT) < 0.01 else -1
