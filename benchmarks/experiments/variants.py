"""Shipped weights of Diffusion Forcing, played in mazes with other options: the code that experiments on options share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments.shared import difference, table, text
from dfplan.envs.reference import normalized_score
from dfplan.intervals import Estimate, mean

Part = Mapping[str, Any]
Variant = tuple[str, Mapping[str, Any]]
"""A recipe, whose weights are shipped, and options of the agent ('options' of `DiffusionForcingAgent.with_options`)."""


def parts(mazes: Sequence[str], variants: Mapping[str, Variant], quick: bool) -> dict[str, dict[str, Any]]:
    """Each variant in each maze on the protocol's first 100 episodes, or 5."""
    episodes = 5 if quick else protocol.EPISODES
    return {
        f"{maze}, {name}": {"maze": maze, "recipe": recipe, "options": dict(options), "episodes": episodes}
        | {"sha256": hashlib.sha256(_weights(maze, recipe).read_bytes()).hexdigest()}
        for maze in mazes
        for name, (recipe, options) in variants.items()
    }


def play(settings: Part) -> dict[str, Any]:
    """The raw returns of one part, on one thread, with the values of its options and of those that the shipped agent has."""
    import torch  # late: --help needs no torch

    from dfplan.agents.diffusion_forcing import DiffusionForcingAgent

    torch.set_num_threads(1)
    agent = DiffusionForcingAgent.load(_weights(settings["maze"], settings["recipe"])).with_options(
        **settings["options"]
    )
    found = protocol.evaluate(agent, f"{settings['maze']}-v1", protocol.evaluation_seeds(settings["episodes"]))
    return {"speed": agent.config.speed, "arrival": agent.config.arrival, "returns": list(found.returns)}


def scores(played: Mapping[str, Part], maze: str, name: str) -> np.ndarray:
    """D4RL-normalized scores of a variant's episodes."""
    return normalized_score(f"{maze}-v1", played[f"{maze}, {name}"]["returns"])


def gain(played: Mapping[str, Part], maze: str, name: str, other: str) -> Estimate:
    """The mean paired difference of one variant's scores to another's, on the same starts."""
    return difference([scores(played, maze, name)], [scores(played, maze, other)])


def shown(played: Mapping[str, Part], mazes: Sequence[str], variants: Mapping[str, Variant]) -> str:
    """A table of all variants: scores, raw returns, and paired differences to the first."""
    first, *_ = variants
    rows = []
    for name in variants:
        cells = []
        for maze in mazes:
            raw = np.mean(played[f"{maze}, {name}"]["returns"])
            cell = f"{text(mean([scores(played, maze, name)]))}<br>return {raw:.1f}"
            change = "" if name == first else f"<br>({text(gain(played, maze, name, first), sign='+')})"
            cells.append(cell + change)
        rows.append([name, *cells])
    episodes = len(next(iter(played.values()))["returns"])
    return table(["variant", *mazes], rows) + (
        f"\n\nMean D4RL-normalized score of {episodes} episodes, with its 95% interval, and the mean raw return; in "
        "parentheses the paired difference to the first line, on the same starts.\n"
    )


def _weights(maze: str, recipe: str) -> Any:
    name = maze if recipe == "default" else f"{maze}-{recipe}"
    return files("dfplan.agents").joinpath("pretrained", f"{name}.safetensors")
