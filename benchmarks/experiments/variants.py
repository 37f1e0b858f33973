"""Shipped weights of Diffusion Forcing, played in mazes with other options: the code that experiments on options share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.loading import PRETRAINED
from dfplan.benchmarks import protocol, rows
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings
from dfplan.envs.reference import normalized_score
from dfplan.intervals import Estimate, mean

Variant = tuple[str, Mapping[str, Any]]
"""A recipe, whose weights are shipped, and options of the agent ('options' of `DiffusionForcingAgent.with_options`)."""


def parts(mazes: Sequence[str], variants: Mapping[str, Variant], quick: bool) -> Settings:
    """Each variant in each maze on the protocol's first 100 episodes, or 5."""
    episodes = 5 if quick else protocol.EPISODES
    return {
        f"{maze}, {name}": {"maze": maze, "recipe": recipe, "options": dict(options), "episodes": episodes}
        | {"sha256": digest(maze, recipe)}
        for maze in mazes
        for name, (recipe, options) in variants.items()
    }


def digest(maze: str, recipe: str) -> str:
    """Of the shipped weights."""
    return hashlib.sha256(weights(maze, recipe).read_bytes()).hexdigest()


def weights(maze: str, recipe: str) -> Path:
    """The file of the shipped weights."""
    return PRETRAINED / f"{rows.of_data(maze, recipe)}.safetensors"


def play(settings: Part) -> Part:
    """The raw returns of one part, with the values of its options and of those that the shipped agent has."""
    agent = DiffusionForcingAgent.load(weights(settings["maze"], settings["recipe"]))
    agent = agent.with_options(**settings["options"])
    found = protocol.evaluate(agent, f"{settings['maze']}-v1", protocol.evaluation_seeds(settings["episodes"]))
    return {"speed": agent.config.speed, "arrival": agent.config.arrival, "returns": list(found.returns)}


def scores(played: Parts, maze: str, name: str) -> np.ndarray:
    """D4RL-normalized scores of a variant's episodes."""
    return normalized_score(f"{maze}-v1", played[f"{maze}, {name}"]["returns"])


def gain(played: Parts, maze: str, name: str, other: str) -> Estimate:
    """The mean paired difference of one variant's scores to another's, on the same starts."""
    return shared.difference([scores(played, maze, name)], [scores(played, maze, other)])


def shown(played: Parts, mazes: Sequence[str], variants: Mapping[str, Variant]) -> str:
    """A table of all variants: scores, raw returns, and paired differences to the first."""
    first = next(iter(variants))

    def cell(maze: str, name: str) -> str:
        raw = np.mean(played[f"{maze}, {name}"]["returns"])
        change = "" if name == first else f"<br>({gain(played, maze, name, first):+.1f})"
        return f"{mean([scores(played, maze, name)]):.1f}<br>return {raw:.1f}{change}"

    episodes = len(next(iter(played.values()))["returns"])
    return shared.table(["variant", *mazes], [[name, *(cell(maze, name) for maze in mazes)] for name in variants]) + (
        f"\n\nMean D4RL-normalized score of {episodes} episodes, with its 95% interval, and the mean raw return; in "
        "parentheses the paired difference to the first line, on the same starts.\n"
    )
