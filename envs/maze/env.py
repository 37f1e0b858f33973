"""D4RL's Maze2D as a Gymnasium environment.

A particle is pushed through a maze towards a goal; the episode never ends by itself (`terminated` is always False)
and pays for every step spent within the goal's radius, so that the return counts how soon the goal is reached *and*
whether the particle stays. Not to be confused with gymnasium-robotics' PointMaze, a task in other units, with other
dynamics and scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp, hypot, isfinite
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import ArrayLike

from dfplan.envs.maze.layouts import Layout, named, parse
from dfplan.envs.maze.physics import TIMESTEP, PointMass
from dfplan.envs.maze.render import draw
from dfplan.envs.real_arrays import real_array

GOAL_RADIUS = 0.5
"""Distance to the goal, in cells, within which the sparse reward is 1."""

Observation = np.ndarray | dict[str, np.ndarray]


class Maze2dEnv(gym.Env[Observation, np.ndarray]):
    """Observation (x, y, vx, vy), float64, unbounded; action (ax, ay), float32 in [-1, 1], 0.01 s a step.

    `info` holds `goal` (2,) and `success` (within the goal's radius now) at every reset and step.

    Args:
        maze: name of one of D4RL's layouts ('umaze', 'medium', 'large', ...), or None if `layout` is given.
        layout: a maze of the user's own, as text (see `dfplan.envs.maze.layouts.parse`).
        reward: 'sparse', 1 within `GOAL_RADIUS` after the step and else 0; 'dense', exp(-distance).
        random_goal: draw a new goal at each reset, as D4RL's `set_target` does, instead of the layout's fixed one.
        goal_conditioned: observations become a dictionary of `observation` (4,), `achieved_goal` (2,) and
            `desired_goal` (2,), and `compute_reward` relabels them, as hindsight replay expects. Without it there is
            no `compute_reward`: its presence is how stable-baselines3 recognizes goal-conditioned environments.
        render_mode: None or 'rgb_array' (a view from above, drawn without a GPU or a display).

    Raises ValueError for a bad layout or option, and KeyError for an unknown maze.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / TIMESTEP)}  # noqa: RUF012

    def __init__(
        self,
        maze: str | None = None,
        layout: str | None = None,
        reward: str = "sparse",
        random_goal: bool = False,
        goal_conditioned: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if layout is None and maze is None:
            raise ValueError("a maze is needed: give layout, a text with rows of '#', 'O' and 'G', or maze, a name")
        if layout is not None and maze is not None:
            raise ValueError(f"give a layout or the maze {maze!r}, not both; maze2d-custom-v1 takes any layout")
        if reward not in ("sparse", "dense"):
            raise ValueError(f"unknown reward {reward!r}; expected 'sparse' or 'dense'")
        for name, value in (("random_goal", random_goal), ("goal_conditioned", goal_conditioned)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} is True or False, not {value!r}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}; expected None or 'rgb_array'")
        self.layout: Layout = parse(layout) if layout is not None else named(str(maze))
        self.render_mode = render_mode
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        state_space = Box(-np.inf, np.inf, (4,), np.float64)
        point_space = Box(-np.inf, np.inf, (2,), np.float64)
        goal_spaces: dict[str, Space[Any]] = {
            "observation": state_space,
            "achieved_goal": point_space,
            "desired_goal": point_space,
        }
        self.observation_space = Dict(goal_spaces) if goal_conditioned else state_space  # type: ignore[assignment]
        self._sparse = reward == "sparse"
        self._random_goal = random_goal
        self._goal_conditioned = goal_conditioned
        self._physics = PointMass(self.layout)
        self._state = (0.0, 0.0, 0.0, 0.0)
        self._goal_x, self._goal_y = 0.0, 0.0
        self._set_goal(self.layout.goal)

    @property
    def goal(self) -> np.ndarray:
        """The current goal (2,), a copy."""
        return np.array((self._goal_x, self._goal_y))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start in a free cell drawn uniformly, +-0.1 along each axis, with a velocity of N(0, 0.1^2).

        `options` may fix `state` (x, y, vx, vy) and `goal` (x, y); both must lie in free cells. A goal given
        here holds for this episode alone. Raises ValueError for other options.
        """
        super().reset(seed=seed)
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise ValueError(f"reset options are a dictionary with 'state' or 'goal', not {options!r}")
        if extra := [name for name in options if name not in ("state", "goal")]:
            raise ValueError(f"unknown reset option {extra[0]!r}; expected 'state' or 'goal'")
        rng = self.np_random
        (_, position), velocity = self.layout.random_place(rng), rng.normal(0.0, 0.1, size=2)
        goal = np.array(self.layout.random_place(rng)[1]) if self._random_goal else self.layout.goal
        state = np.concatenate([position, velocity])
        if "state" in options:
            state = self._checked("state", options["state"], 4)
        if "goal" in options:
            goal = self._checked("goal", options["goal"], 2)
        self._set_goal(goal)
        x, y, vx, vy = self._state = tuple(state.tolist())
        self._physics.set_state(x, y, vx, vy)
        return self._observe(), self._info(hypot(x - self._goal_x, y - self._goal_y))

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Push for 0.01 s. Raises ValueError if the action is not two finite numbers; beyond [-1, 1] it is clipped."""
        ax, ay = _pair(action)
        x, y, _, _ = self._state = self._physics.step(ax, ay)
        distance = hypot(x - self._goal_x, y - self._goal_y)
        if self._goal_conditioned:  # the relabeling function's own last bit, which checkers compare
            reward = float(self._relabel((x, y), (self._goal_x, self._goal_y)))
        else:
            reward = (1.0 if distance <= GOAL_RADIUS else 0.0) if self._sparse else exp(-distance)
        return self._observe(), reward, False, False, self._info(distance)

    @property
    def compute_reward(self) -> Callable[..., np.ndarray]:
        """`compute_reward(achieved_goal (..., 2), desired_goal (..., 2), info=None)`: the reward (...), float64, of being
        at the one when the goal is the other. ValueError for other shapes and for NaN or infinity.

        AttributeError without `goal_conditioned=True`.
        """
        if not self._goal_conditioned:
            raise AttributeError("compute_reward needs an environment made with goal_conditioned=True")
        return self._relabel

    def _relabel(self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: object = None) -> np.ndarray:
        achieved = real_array("an achieved goal is (..., 2) finite numbers", achieved_goal)
        desired = real_array("a desired goal is (..., 2) finite numbers", desired_goal)
        try:
            if not achieved.shape[-1:] == desired.shape[-1:] == (2,):
                raise ValueError
            distance = np.linalg.norm(achieved - desired, axis=-1)
        except ValueError as error:
            shapes = f"{achieved.shape} and {desired.shape}"
            raise ValueError(f"rewards need goals (..., 2) whose shapes fit each other, got {shapes}") from error
        return (distance <= GOAL_RADIUS).astype(np.float64) if self._sparse else np.exp(-distance)

    def render(self) -> np.ndarray | None:
        """The view from above as uint8 (H, W, 3), oriented like the layout's text; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn('render() does nothing without a render mode; make the environment with "rgb_array"')
            return None
        return self.picture()

    def picture(self) -> np.ndarray:
        """What `render` gives, whatever the render mode."""
        return draw(self.layout, self._state[:2], (self._goal_x, self._goal_y), GOAL_RADIUS)

    def _observe(self) -> Observation:
        state = np.array(self._state)
        if not self._goal_conditioned:
            return state
        return {"observation": state, "achieved_goal": state[:2].copy(), "desired_goal": self.goal}

    def _info(self, distance: float) -> dict[str, Any]:
        return {"goal": np.array((self._goal_x, self._goal_y)), "success": distance <= GOAL_RADIUS}

    def _set_goal(self, goal: np.ndarray) -> None:
        self._goal_x, self._goal_y = goal.tolist()

    def _checked(self, name: str, value: object, size: int) -> np.ndarray:
        array = real_array(f"the reset option {name!r} is {size} finite numbers", value, (size,))
        i, j = self.layout.cell_of(array[0], array[1])
        rows, columns = self.layout.shape
        if not (0 <= i < rows and 0 <= j < columns) or self.layout.walls[i, j]:
            raise ValueError(f"the reset option {name!r} = {array.tolist()} lies outside the free cells of the maze")
        return array


def _pair(action: object) -> tuple[float, float]:
    """The two numbers of an action; ValueError for anything else."""
    # The fast way of the inner loop.
    if type(action) is np.ndarray and action.dtype.kind == "f" and action.shape == (2,):
        ax, ay = action.tolist()
        if isfinite(ax) and isfinite(ay):
            return ax, ay
    ax, ay = real_array("an action is two finite numbers (ax, ay)", action, (2,)).tolist()
    return ax, ay
