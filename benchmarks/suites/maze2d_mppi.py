"""The rows of model predictive control: what the agents are given of a task's maze.

`mppi` is given the true dynamics and no map: its cost is the straight distance. `mppi_field` is also given the map, as the
length of the shortest path; it shows what the environment allows. `with_field` gives the same cost to an agent with
learned dynamics, so that only the dynamics differ.
"""

from __future__ import annotations

import numpy as np

from dfplan.agents.mppi import GoalCost, LearnedMPPIAgent, MPPIAgent, MPPIConfig
from dfplan.envs.maze.geodesic import Geodesic
from dfplan.envs.maze.rollouts import Rollouts
from dfplan.envs.registry import MazeTask

CONTROLS = MPPIConfig(action_dim=2)
"""Of a force along each axis."""
ARRIVAL = 0.35
"""Chebyshev distance from which on a state costs nothing: the square lies within the goal's radius of 0.5."""


def field_cost(task: MazeTask) -> GoalCost:
    """The length of the shortest way to the goal in the Chebyshev norm: velocities are limited along each axis."""
    return GoalCost(Geodesic(task.layout, np.inf), ARRIVAL)


def mppi(task: MazeTask) -> MPPIAgent:
    """Given the true dynamics, but no map."""
    return MPPIAgent(Rollouts(task.layout), GoalCost(), CONTROLS)


def mppi_field(task: MazeTask) -> MPPIAgent:
    """Given the true dynamics and the map."""
    return MPPIAgent(Rollouts(task.layout), field_cost(task), CONTROLS)


def with_field(agent: LearnedMPPIAgent, task: MazeTask) -> LearnedMPPIAgent:
    """Given the map; its dynamics are learned."""
    agent.cost = field_cost(task)
    return agent
