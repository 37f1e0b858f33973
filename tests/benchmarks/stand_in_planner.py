"""A planner's face over the waypoint expert: made plans along the grid, so that the benchmark can be tested alone."""

from types import SimpleNamespace

import numpy as np

from dfplan.envs.maze.expert import WaypointExpert, distance_field, shortest_path


class StandInPlanner:
    execution = "waypoints"
    parameters = 7
    card = {"command": "none", "seed": 0}  # noqa: RUF012

    def __init__(self, task):
        self.layout = task.layout
        self.expert = WaypointExpert(task.layout)

    def reset(self, goal=None, seed=None):
        self.goals = np.atleast_2d(goal)
        self.expert.reset(goal=goal, seed=0)
        self.last_plan = None

    def act(self, observation):
        if self.last_plan is None:
            self.last_plan = self.plan(observation)
        return self.expert.act(observation)

    def plan(self, observation, goal=None, horizon=None, record=False):
        paths = [self._path(*row) for row in zip(np.atleast_2d(observation), self.goals, strict=True)]
        tokens = max(map(len, paths))
        clean = np.zeros((len(paths), tokens, 1, 4))
        for row, path in enumerate(paths):
            clean[row, : len(path), 0, :2] = path
            clean[row, len(path) :, 0, :2] = path[-1]
        rng, history = np.random.default_rng(0), []
        for level in range(24 if record else 0):
            lag = np.clip(1 - (level - np.arange(tokens) * 0.3) / 16, 0, 1)
            noise = rng.normal(scale=2.0, size=clean.shape)
            history.append((clean + noise * lag[None, :, None, None], np.tile(256 * lag, (len(paths), 1))))
        return SimpleNamespace(observations=clean, lengths=np.array([len(path) - 1 for path in paths]), history=history)

    def _path(self, observation, goal):
        start, end = observation[:2], self.layout.cell_of(*goal)
        cells = shortest_path(distance_field(self.layout, end), self.layout.cell_of(*start))
        points = np.concatenate([start[None], np.array(cells, dtype=float)])
        time = np.linspace(0, len(points) - 1, 3 * len(points))
        return np.stack([np.interp(time, np.arange(len(points)), points[:, c]) for c in (0, 1)], axis=1)


def make(task):
    return StandInPlanner(task)
