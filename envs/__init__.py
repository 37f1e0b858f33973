"""Environments, their experts, data collection and reference scores.

`import dfplan.envs` makes the ids of mazes and locomotion known to `gymnasium.make`, and `make` serves those of
other packages too. It imports neither torch nor mujoco.
"""

from dfplan.envs.registry import TASKS, Task, make, register_all, task

__all__ = ["TASKS", "Task", "make", "task"]

register_all()
