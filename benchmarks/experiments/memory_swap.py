"""How much of the past an arm that exchanges two objects must be shown: success against the length of the history.

One model, with the weights of the default recipe, is played with a past that is cut. It was trained on pasts that are cut
anywhere, as they are where an episode begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dfplan.agents.episodes import Player, Start
from dfplan.agents.episodes import play as play_together
from dfplan.benchmarks import protocol, rows
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.envs.registry import find
from dfplan.intervals import mean

CLAIM = (
    "With its whole history of 170 steps the arm exchanges the objects more often than with one of 30 steps, about the time of "
    "one move, and without history it fails in at least 90% of the episodes."
)
PAGE = "memory"
TASK = "memory-swap"
HISTORIES = (0, 30, 80, 170)
"""Steps; a move takes about 40."""
EPISODES, BATCH = 40, 10


def parts(quick: bool) -> Settings:
    """A part for each history, all on the same starts."""
    episodes = 2 if quick else EPISODES
    return {f"{steps} steps": {"remembered": steps, "episodes": episodes} for steps in HISTORIES}


def play(settings: Part) -> Part:
    """Whether each episode had success."""
    agent = built().with_options(remembered=settings["remembered"])
    return {"success": success(agent, protocol.evaluation_seeds(settings["episodes"]))}


def built(row: str = "diffusion-forcing") -> Any:
    """The agent of a row."""
    return rows.row(row).build(find(TASK), seed=0)


def success(agent: Player, seeds: Sequence[int], **options: Any) -> list[bool]:
    """Whether each episode had success, in environments with these options."""
    task, found = find(TASK), []
    envs = [task.make(disable_env_checker=True, **options) for _ in range(min(BATCH, len(seeds)))]
    for batch in protocol.batches(seeds, BATCH):
        played = play_together(agent, envs, [Start(seed) for seed in batch], longest=task.max_episode_steps)
        found += list(played.success or ())
    return found


def percent(played: Parts) -> dict[str, list[Any]]:
    """By part: successes in percent, of one set of weights."""
    return {name: [100 * np.asarray(part["success"], float)] for name, part in played.items()}


def conclude(played: Parts) -> Verdict:
    """It held if the interval of the paired gain lies above 0, and at most a tenth succeeds without history."""
    found = percent(played)
    none, short, *_, whole = found.values()
    lines = [[name, f"{mean(one):.1f}"] for name, one in found.items()]
    held = shared.above(shared.difference(whole, short), 0.0) and none[0].mean() <= 10
    return bool(held), shared.table(["history", "success %"], lines) + (
        f"\n\nSuccess in {len(none[0])} episodes of one set of weights, with its 95% interval.\n"
    )


def figure(played: Parts) -> Figure:
    """Success over the history."""
    found = zip(played.values(), percent(played).values(), strict=True)
    line = shared.means({part["settings"]["remembered"]: one for part, one in found})
    return shared.plot({"memory-swap": {"diffusion-forcing": line}}, "history, steps", "success, %")
