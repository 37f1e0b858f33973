"""What the page shows, as plain JSON: a maze, a plan with the history of its denoising, and an episode as it is driven."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.benchmarks.recording import denoising_of
from dfplan.envs.maze.env import GOAL_RADIUS
from dfplan.envs.registry import MazeTask
from dfplan.viewer.questions import SLIDERS, Place, Question

DIGITS = 3
"""Decimals of a position: a thousandth of a cell."""
STEPS = 20
"""Environment steps in one part of an episode."""
SHOWN = ("uncertainty", "horizons", "samples", "scale", "futures")
"""Sliders of a maze's page."""
AFTER_ARRIVAL = 100
"""Steps that are driven after the goal was reached first."""


@dataclass(frozen=True)
class Scene:
    """A maze with an agent that plans in it; many threads may ask it at once."""

    task: MazeTask
    agent: DiffusionForcingAgent

    def __post_init__(self) -> None:
        """Raises ValueError for an agent that plans nothing like a particle in a maze."""
        if not isinstance(self.agent, DiffusionForcingAgent):
            raise ValueError(f"the viewer shows Diffusion Forcing agents, not a {type(self.agent).__name__}")
        if self.agent.observation_dim != 4 or self.agent.goal_dim != 2:
            found = f"{self.agent.observation_dim} and {self.agent.goal_dim}"
            raise ValueError(f"the viewer's mazes have observations of 4 numbers and goals of 2, these weights {found}")

    def to_json(self) -> dict[str, Any]:
        """The maze, a start and a goal to begin with, and the sliders with the agent's own settings."""
        layout = self.task.layout
        away = np.abs(layout.free_cells - layout.goal).sum(1)
        plan, sliders = self.agent.config.plan, [slider for slider in SLIDERS if slider.option in SHOWN]
        return {
            "name": self.task.env_id,
            "rows": list(layout.rows),
            "walls": layout.wall_boxes().round(DIGITS).tolist(),
            "start": layout.free_cells[away.argmax()].tolist(),
            "goal": layout.goal.tolist(),
            "radius": GOAL_RADIUS,
            "steps": self.task.max_episode_steps,
            "parameters": self.agent.parameters,
            "streaming": self.agent.config.streaming if self._streams() else None,
            "sliders": [{**asdict(slider), "value": getattr(plan, slider.option)} for slider in sliders],
        }

    def plan(self, question: Question) -> dict[str, Any]:
        """One plan, and the points and noise levels of each row of its denoising. ValueError for what cannot be planned."""
        start, goal = self._places(question)
        agent = question.agent(self.agent)
        agent.reset(seed=question.seed)
        plan = agent.plan([*start, 0.0, 0.0], ask=question.ask, record=True)
        shown = denoising_of(plan, np.asarray(goal))
        assert shown is not None
        scores = {name: float(score[0]) for name, score in plan.scores.items()}
        return {
            "tracks": [shown.positions.round(DIGITS).tolist()],
            "levels": shown.levels.round(DIGITS).tolist(),
            "steps": int(plan.lengths[0]) * agent.model.config.layout.stride,
            "scores": {name: round(score, DIGITS) for name, score in scores.items()},
        }

    def drive(self, question: Question) -> Iterator[dict[str, Any]]:
        """An episode in parts of a few steps: where the particle went, and the plan that it follows if that is a new one.

        Ends some steps after the goal was reached, or with the episode. ValueError, before the first part, for
        what cannot be driven.
        """
        start, goal = self._places(question)
        agent, env = question.agent(self.agent), self.task.make(disable_env_checker=True)
        agent.reset(ask=question.ask, seed=question.seed)
        at = {"state": [*start, 0.0, 0.0], "goal": list(goal)}
        observation, info = env.reset(seed=question.seed, options=at)
        reached = 0 if info["success"] else None
        step, ended = 0, False
        shown: np.ndarray | None = None
        path = [observation[:2]]
        while not ended:
            action = agent.act(observation)
            observation, _, terminated, truncated, info = env.step(action)
            path.append(observation[:2])
            step += 1
            if reached is None and info["success"]:
                reached = step
            ended = terminated or truncated or (reached is not None and step >= reached + AFTER_ARRIVAL)
            if ended or step % STEPS == 0:
                part: dict[str, Any] = {"path": np.round(path, DIGITS).tolist(), "step": step, "reached": reached}
                planned = agent.followed()
                if planned is not None and (shown is None or not np.array_equal(planned, shown)):
                    shown, part["plan"] = planned, [planned[:, :2].round(DIGITS).tolist()]
                yield part
                path = [observation[:2]]

    def _places(self, question: Question) -> tuple[Place, Place]:
        """Start and goal. ValueError for one that is missing or lies in a wall."""
        layout = self.task.layout
        if question.start is None or question.goal is None:
            raise ValueError("a question about a maze has a start and a goal")
        for name, (x, y) in (("start", question.start), ("goal", question.goal)):
            i, j = layout.cell_of(x, y)
            inside = 0 <= i < layout.shape[0] and 0 <= j < layout.shape[1]
            if not inside or layout.walls[i, j]:
                raise ValueError(f"the {name} ({x:.1f}, {y:.1f}) lies in a wall: choose a free cell")
        return question.start, question.goal

    def _streams(self) -> bool:
        """Whether the agent's plans can stay alive."""
        try:
            return bool(self.agent.with_options(streaming=True))
        except ValueError:
            return False
