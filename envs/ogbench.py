"""OGBench's manipulation environments (Park et al. 2025): an arm with a gripper, cubes, a drawer, a window, buttons.

The environments are the package's own, with its protocol: five tasks by `reset(options={"task_id": 1})`, a goal that is a
whole observation in `info["goal"]`, success from `step`, and an end of the episode at success.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class SeededGoal(gymnasium.Wrapper):
    """An OGBench environment in which a reset's seed decides about the goal too.

    The package takes two random steps before it observes the goal, with actions that no seed reaches: of the same seed, the
    cubes in the goal are at the same places and the arm is not.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the package resets. A seed is also that of the task, where `options` name none."""
        env: Any = self.env.unwrapped
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        rng, step = self._random, env.step
        if options is None or not {"task_id", "task_info"} & options.keys():
            options = {"task_id": int(rng.integers(1, env.num_tasks + 1)), **(options or {})}
        env.step = lambda action: step(rng.uniform(-1.0, 1.0, np.shape(action)))
        try:
            return self.env.reset(seed=seed, options=options)
        finally:
            del env.step

    @property
    def _random(self) -> np.random.Generator:
        if not hasattr(self, "_rng"):
            self._rng = np.random.default_rng()
        return self._rng
