"""Environments, their experts, data collection and reference scores.

`import dfplan.envs` makes every environment id known to `gymnasium.make`. It imports neither torch nor mujoco.
"""

from dfplan.envs.registry import TASKS, Task, register_all, task

__all__ = ["TASKS", "Task", "task"]

register_all()
