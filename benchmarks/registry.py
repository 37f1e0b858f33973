"""The rows of the table: one registry from a row's name to the agent that plays it.

A new baseline joins by one entry in `ROWS`. A user's own agent needs none: ``package.module:factory`` names a callable
that takes the `dfplan.envs.tasks.Task` and returns an agent. torch is imported by the rows that need it only.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfplan.benchmarks.protocol import Agent
from dfplan.envs.expert import WaypointExpert
from dfplan.envs.tasks import Task, unknown

if TYPE_CHECKING:
    from dfplan.benchmarks.recipes import RecipeName


class MissingWeightsError(ValueError):
    """A row's weights are not there; the message names the command that trains them."""

    def __init__(self, weights: str, maze: str, recipe: str) -> None:
        super().__init__(weights, maze, recipe)  # all of them, so that it passes between processes
        self.weights, self.maze, self.recipe = weights, maze, recipe

    @property
    def command(self) -> list[str]:
        """Arguments of ``python benchmarks/train.py`` that train the weights."""
        return ["--env", f"maze2d-{self.maze}", *(["--recipe", self.recipe] if self.recipe != "default" else [])]

    def __str__(self) -> str:
        train = " ".join(["python benchmarks/train.py", *self.command])
        return f"there are no weights {self.weights!r}: train them with `{train}`, or pass --train"


class RandomAgent:
    """Uniform actions in [-1, 1]: what a score of about 0 means."""

    def __init__(self, action_dim: int = 2) -> None:
        self._action_dim = action_dim
        self.reset()

    def reset(self, goal: np.ndarray | None = None, seed: int | None = None) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions (act_dim,) for one observation (obs_dim,), (B, act_dim) for a batch."""
        shape = (*np.shape(observation)[:-1], self._action_dim)
        return self._rng.uniform(-1.0, 1.0, size=shape).astype(np.float32)


@dataclass(frozen=True)
class Row:
    """How one row of the table is made."""

    build: Callable[[Task, str], Agent]
    """From a task and a torch device to an agent."""
    about: str
    """One sentence under the table."""
    execution: str = ""
    """What turns its plans or states into actions, where the agent does not say so itself."""


def weights_file(name: str) -> Path | None:
    """Shipped weights of that name, else those of a finished training run in ./runs; None where there are neither."""
    shipped = Path(str(files("dfplan.agents").joinpath("pretrained", f"{name}.safetensors")))
    trained = Path("runs") / f"{name}-seed0" / "weights.safetensors"
    return next((path for path in (shipped, trained) if path.is_file()), None)


def _diffusion_forcing(task: Task, device: str, recipe: RecipeName = "default", **options: Any) -> Agent:
    from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
    from dfplan.benchmarks.recipes import recipe as find_recipe

    weights = find_recipe(task.maze, recipe).weights
    path = weights_file(weights)
    if path is None:
        raise MissingWeightsError(weights, task.maze, recipe)
    agent = DiffusionForcingAgent.load(path)
    if device != "cpu":
        agent = agent.to(device)
    return agent.with_options(**options) if options else agent


ROWS: dict[str, Row] = {
    "diffusion-forcing": Row(_diffusion_forcing, "Diffusion Forcing, the default recipe, without Monte Carlo guidance"),
    "diffusion-forcing-mcg": Row(
        lambda task, device: _diffusion_forcing(task, device, scale=1.0, futures=2),
        "the same weights with Monte Carlo guidance: two futures, the time to reach the goal as cost",
    ),
    "diffusion-forcing-paper": Row(
        lambda task, device: _diffusion_forcing(task, device, "paper"),
        "the recipe of the paper: causal, bundles of 10 steps, zig-zag schedule, Monte Carlo guidance",
    ),
    "expert": Row(
        lambda task, device: WaypointExpert(task.layout),
        "the controller that made the data; it is given the maze's map",
        execution="waypoints and a PD controller",
    ),
    "random": Row(lambda task, device: RandomAgent(), "uniform random actions", execution="random actions"),
}


def row(name: str) -> Row:
    """The row of a name, or of ``module:factory``. KeyError for an unknown name, ValueError for a bad factory."""
    if name in ROWS:
        return ROWS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise unknown("agent", name, ROWS)
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import the agent {name!r} ({error}); expected 'package.module:factory'") from error
    return Row(lambda task, device: factory(task), f"built by {name}")


def description(name: str, agent: Any) -> dict[str, Any]:
    """What a result keeps of an agent: how it executes, its size, its configuration and the card of its weights."""
    config = getattr(agent, "config", None)
    return {
        "about": row(name).about,
        "execution": getattr(agent, "execution", row(name).execution),
        "parameters": getattr(agent, "parameters", None),
        "config": dataclasses.asdict(config) if dataclasses.is_dataclass(config) else {},  # type: ignore[arg-type]
        "card": getattr(agent, "card", None),
    }
