"""From recorded data to an agent in one call, which leaves weights that say where they come from.

recipe = Recipe(
    DiffusionForcingAgent, TrajectoryModel, model, AgentConfig(), TrainConfig(steps=10_000),
    batches=lambda data: Windows(data, model.layout.steps(model.tokens)).sample,
)
agent = fit(recipe, load_minari("mine/robot-v0"), "runs/robot")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dfplan.config_json import config_to_json
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import BatchSource
from dfplan.training.config import TrainConfig
from dfplan.training.loop import train

WEIGHTS = "weights.safetensors"
"""The weights of a finished run, in its folder."""

Score = Callable[[Sequence[Any]], Mapping[str, Any]]
"""`score(agents)`: measures agents, one for each training seed of a run, and returns a JSON object."""


@dataclass(frozen=True)
class Recipe:
    """What to train, how, and the agent that acts with it."""

    agent: type[Any]
    """The agent's class: `agent(learner, acting, card)`, with `save(path)` and `load(path)`; of several training seeds in one
    file, `load(path, member)`."""
    learner: Callable[[Any], Any]
    """Makes what is trained, from `model`: a `dfplan.data.statistics.Statistics` module whose call, with a batch and a
    generator, returns its losses."""
    model: Any
    """The learner's configuration: a frozen dataclass. If it has `seeds`, these training seeds are trained in one run."""
    acting: Any
    """The agent's configuration."""
    train: TrainConfig
    """How the learner is trained."""
    batches: Callable[[Trajectories], BatchSource]
    """What the learner learns from, drawn from the data."""
    curve: int = 0
    """Points of the learning curve, evenly spread."""

    @property
    def stacked(self) -> bool:
        """Whether several training seeds are trained in one run and kept in one file."""
        return hasattr(self.model, "seeds")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds of a run."""
        return tuple(self.model.seeds) if self.stacked else (self.train.seed,)


def fit(
    recipe: Recipe,
    data: Trajectories,
    run_dir: str | Path,
    *,
    score: Score | None = None,
    measure: Score | None = None,
    about: Mapping[str, Any] | None = None,
    encoder: Any = None,
    accelerator: str = "auto",
    devices: int = 1,
    quiet: bool = False,
) -> Any:
    """Train a recipe's learner on data and return the agent, on the CPU, whose weights are then in `run_dir`.

    The same call after an interruption goes on where it was; a finished run is not trained again.

    Args:
        recipe: What to train.
        data: What to train on.
        run_dir: Folder of the run, as for `dfplan.training.loop.train`; the weights are its `weights.safetensors`.
        score: Measures the trained agents, for the card of the weights.
        measure: Measures the agents `recipe.curve` times while they are trained, in numbers, for the learning curve.
            Both get agents as they come back from a file.
        about: Further entries of the card, such as 'name' and 'command'.
        encoder: What made the observations of pictures (`dfplan.models.keypoints.PictureEncoder`): a part of the agent.
        accelerator, devices, quiet: As for `dfplan.training.loop.train`.

    Raises what `dfplan.training.loop.train` raises, and ValueError for data of other widths than the learner's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        learner = recipe.learner(recipe.model)
    _require_widths(learner, data)
    learner.fit_statistics(data)

    def agent_of(card: dict[str, Any]) -> Any:
        made = recipe.agent(learner, recipe.acting, card)
        return made if encoder is None else made.seeing(encoder)

    def probe() -> Mapping[str, float]:
        assert measure is not None
        return measure(_from_file(recipe, agent_of({})))

    result = train(
        learner,
        recipe.batches(data),
        recipe.train,
        run_dir,
        header={"model": config_to_json(recipe.model), "data": data.fingerprint},
        probe=probe if measure is not None and recipe.curve else None,
        probe_every=recipe.train.steps // max(recipe.curve, 1),
        accelerator=accelerator,
        devices=devices,
        quiet=quiet,
    )
    learner.load_state_dict(result.ema_state)
    card = dict(about or {}) | {
        "seed": recipe.train.seed,
        "seeds": list(recipe.seeds),
        "steps": result.steps,
        "data": {"name": data.name, "steps": len(data), "fingerprint": data.fingerprint},
        "training_seconds": round(result.seconds, 1),
        "metrics": result.metrics,
        "curve": result.curve,
    }
    learner.cpu().eval()
    agent = agent_of(card)
    if result.rank == 0:
        if score is not None:
            agent.card["score"] = dict(score(_from_file(recipe, agent)))
        agent.save(Path(run_dir) / WEIGHTS)
    return agent


def _require_widths(learner: Any, data: Trajectories) -> None:
    expected = len(learner.observation.mean), len(learner.action_low)
    found = data.observations.shape[1], data.actions.shape[1]
    if found != expected:
        raise ValueError(
            f"{data.name} has {found[0]} observation and {found[1]} action columns, "
            f"but the recipe is for {expected[0]} and {expected[1]}"
        )


def _from_file(recipe: Recipe, agent: Any) -> list[Any]:
    """The agents that come back from a file of an agent, one for each training seed: some files are rounded."""
    with TemporaryDirectory(prefix="dfplan-") as folder:
        path = Path(folder, WEIGHTS)
        agent.save(path)
        if not recipe.stacked:
            return [recipe.agent.load(path)]
        return [recipe.agent.load(path, member) for member in range(len(recipe.seeds))]
