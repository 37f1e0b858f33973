"""What the page shows of a robot: pictures of its scene, with a plan as the places where its effector and the things it moves
would come to be."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.episodes import SUCCESS, Start, goal_of
from dfplan.benchmarks.rows import suite_of
from dfplan.envs import sight
from dfplan.envs.registry import Task
from dfplan.viewer.questions import SLIDERS, Question

R = TypeVar("R")
SIDE = 400
"""Pixels of a picture along each side."""
STEPS = 2
"""Environment steps from one picture of an episode to the next."""
DIGITS = 4
"""Decimals of a place in a picture, which is 1 wide and high."""
SHOWN = ("uncertainty", "steps", "temperature")
"""Sliders of a robot's page."""


@dataclass
class Stage:
    """An environment, and what sees it since its reset. To be used in one thread, as OpenGL asks."""

    task: Task
    env: Any
    seen: sight.Sight | None = None

    def begin(self, question: Question) -> tuple[Any, Any]:
        """The first observation, and the goal, None where the task has none."""
        options = self.task.options[question.task - 1] if self.task.options else None
        observation, info = Start(question.seed, options).reset(self.env)
        self.close()
        self.seen = sight.of(self.env, SIDE)
        return observation, goal_of(observation, info)

    def picture(self) -> str:
        """What is seen now, as an address that holds the picture itself."""
        assert self.seen is not None
        file = io.BytesIO()
        Image.fromarray(self.seen.frame()).save(file, "JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

    def tracks(self, observations: np.ndarray) -> list[Any]:
        """Where in the picture the places of planned observations (..., D) lie: of each thing (..., 2), from 0 to 1."""
        assert self.seen is not None
        places = suite_of(self.task).places(self.task, observations)
        return [(self.seen.pixels(part) / SIDE).round(DIGITS).tolist() for part in places.values()]

    def close(self) -> None:
        """Free what draws."""
        if self.seen is not None:
            self.seen.close()
            self.seen = None


class RobotScene:
    """A robot's task with an agent that plans in it; many threads may ask it at once, and one thread draws."""

    def __init__(self, task: Task, agent: DiffusionForcingAgent):
        """Raises ValueError for a task of which a plan shows no places, and for an agent that is not Diffusion Forcing's."""
        if not isinstance(agent, DiffusionForcingAgent):
            raise ValueError(f"the viewer shows Diffusion Forcing agents, not a {type(agent).__name__}")
        things = suite_of(task).places(task, np.zeros(agent.observation_dim or 0))
        if not things:
            raise ValueError(
                f"the viewer shows mazes and robot arms: plans for {task.env_id} have no places to be shown"
            )
        self.task, self.agent, self.things = task, agent, tuple(things)
        self._drawing = ThreadPoolExecutor(1)

    @cached_property
    def _stage(self) -> Stage:
        """Where plans begin, made when the first one is asked for."""
        return self._drawn(self._new_stage)

    def _new_stage(self) -> Stage:
        return Stage(self.task, self.task.make(disable_env_checker=True))

    def to_json(self) -> dict[str, Any]:
        """The first task's scene, and the sliders with the agent's own settings."""
        plan = self.agent.config.plan
        sliders = [slider for slider in SLIDERS if slider.option in SHOWN]
        return {
            "name": self.task.env_id,
            "tasks": max(1, len(self.task.options)),
            "things": self.things,
            "steps": self.task.max_episode_steps,
            "parameters": self.agent.parameters,
            "streaming": None,
            "sliders": [{**asdict(slider), "value": getattr(plan, slider.option)} for slider in sliders],
        }

    def plan(self, question: Question) -> dict[str, Any]:
        """One plan from the beginning, and places and noise levels of each row of its denoising. ValueError for what cannot be
        planned."""
        agent, stage = self._asked(question), self._stage

        def begin() -> tuple[Any, Any, str]:
            return *stage.begin(question), stage.picture()

        observation, goal, picture = self._drawn(begin)
        agent.reset(goal=goal, seed=question.seed)
        plan = agent.plan(observation, record=True)
        used = int(plan.lengths[0]) + 1
        rows = np.stack([part[0, :used, -1].float().cpu().numpy() for part, _ in plan.history])
        levels = np.array([part[0, :used].tolist() for _, part in plan.history], dtype=np.float64)
        return {
            "picture": picture,
            "tracks": self._drawn(lambda: stage.tracks(rows)),
            "levels": (levels / max(float(levels.max()), 1.0)).round(DIGITS).tolist(),
            "steps": (used - 1) * agent.model.config.layout.stride,
            "scores": {name: round(float(score[0]), DIGITS) for name, score in plan.scores.items()},
        }

    def drive(self, question: Question) -> Iterator[dict[str, Any]]:
        """An episode in parts of a few steps: a picture, and the plan that is followed. ValueError, before the first part, for
        what cannot be driven."""
        agent = self._asked(question)
        stage = self._drawn(self._new_stage)
        try:
            observation, goal = self._drawn(lambda: stage.begin(question))
            agent.reset(goal=goal, seed=question.seed)
            step, ended, reached = 0, False, None

            def part() -> dict[str, Any]:
                plan = agent.followed()
                tracks = [] if plan is None else stage.tracks(plan)
                return {"picture": stage.picture(), "plan": tracks, "step": step, "reached": reached}

            while not ended:
                action = agent.act(observation)
                if step % STEPS == 0:
                    yield self._drawn(part)
                observation, _, terminated, truncated, info = self._drawn(partial(stage.env.step, action))
                step += 1
                if reached is None and any(info.get(name) for name in SUCCESS):
                    reached = step
                ended = terminated or truncated
            yield self._drawn(part)
        finally:
            self._drawing.submit(stage.close)  # without waiting: a client that has left ends this wherever it stands

    def _asked(self, question: Question) -> Any:
        """The agent that is asked for. ValueError for a task that is not there."""
        if question.task > max(1, len(self.task.options)):
            raise ValueError(f"{self.task.env_id} has {len(self.task.options) or 1} tasks, there is no {question.task}")
        return question.agent(self.agent)

    def _drawn(self, work: Callable[[], R]) -> R:
        """What a function gives in the thread that draws: OpenGL wants one thread for all."""
        return self._drawing.submit(work).result()
