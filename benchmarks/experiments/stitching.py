"""Whether graph search stitches ways from pieces of 130 steps, none of which leads through the maze.

The recorded episodes are cut into pieces. One agent learns its graph and its inverse dynamics from the pieces alone, the other
(the shipped weights) from whole episodes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dfplan.agents.graph_search import GraphSearchAgent
from dfplan.agents.loading import from_pretrained
from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.train import recipe_of
from dfplan.data.spec import Spec
from dfplan.data.trajectories import Trajectories
from dfplan.envs.reference import normalized_score
from dfplan.envs.registry import find
from dfplan.intervals import mean
from dfplan.training.fit import fit

BAR = 166.9
"""The score to beat, set before the episodes were played."""
CLAIM = f"In maze2d-large, graph search that learned from pieces of 130 steps alone scores more than {BAR}."
PAGE = "graph-search"
TASK = "maze2d-large"
PIECE = 130
"""Steps."""


def parts(quick: bool) -> Settings:
    """Pieces, and whole episodes."""
    episodes = 5 if quick else protocol.EPISODES
    return {
        f"pieces of {PIECE} steps": {"piece": PIECE, "episodes": episodes},
        "whole episodes": {"piece": None, "episodes": episodes},
    }


def play(settings: Part) -> Part:
    """The raw returns of one part."""
    agent = from_pretrained(f"{TASK}-graph-search") if settings["piece"] is None else learned(settings["piece"])
    found = protocol.evaluate(agent, f"{TASK}-v1", protocol.evaluation_seeds(settings["episodes"]))
    return {"returns": list(found.returns)}


def learned(piece: int) -> GraphSearchAgent:
    """The agent that learns from pieces, from its run folder under runs/ if it has been trained before."""
    task = find(TASK)
    data = cut(suite.data_of(task), piece)
    recipe = recipe_of("graph-search", task, suite.of(task).spec or Spec.of(data))
    agent = fit(recipe, data, Path("runs", "experiments", f"pieces-{piece}"), quiet=True)
    assert isinstance(agent, GraphSearchAgent)
    return agent


def cut(data: Trajectories, piece: int) -> Trajectories:
    """The same steps in episodes of at most so many."""
    ends = data.episode_ends
    starts = [np.arange(start, end, piece) for start, end in zip(data.episode_starts, ends, strict=True)]
    steps = data.observations, data.actions, data.rewards
    return Trajectories(*steps, np.concatenate(starts), f"{data.name} in pieces of {piece} steps")


def conclude(played: Parts) -> Verdict:
    """It held if the whole interval lies above the bar."""
    scores = {name: [normalized_score(f"{TASK}-v1", part["returns"])] for name, part in played.items()}
    pieces, whole = scores.values()
    lines = [[name, f"{mean(one):.1f}", f"{np.mean(played[name]['returns']):.1f}"] for name, one in scores.items()]
    change = f"{shared.difference(pieces, whole):+.1f}"
    return shared.above(mean(pieces), BAR), shared.table(["learned from", "score", "return"], lines) + (
        f"\n\nMean D4RL-normalized score of {len(pieces[0])} episodes with its 95% interval, and the mean raw return. Paired "
        f"difference of pieces to whole episodes: {change}.\n"
    )
