"""Where an arm that exchanges two objects can keep its memory: in the context of a transformer, or in a recurrent latent.

Two models of one recipe differ in their networks alone and play the same starts. One attends to all past tokens ('context'),
the other sums them up in a latent ('latent').
"""

from __future__ import annotations

from typing import Any

from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.memory_swap import EPISODES, built, percent, success
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.intervals import mean

CLAIM = (
    "With a recurrent latent for its memory the arm exchanges the objects at least nine tenths as often as with the context of "
    "a transformer, whether all observations are clean or 20% of them are corrupted and found."
)
PAGE = "memory"
MEMORIES = {"context": "diffusion-forcing", "latent": "diffusion-forcing-recurrent"}
"""The row that keeps its memory there."""
SHARES = {"clean": 0.0, "20% corrupted": 0.2}


def parts(quick: bool) -> Settings:
    """Each memory with each share of corrupted observations."""
    episodes = 2 if quick else EPISODES
    return {
        f"{memory}, {name}": {"row": row, "corrupted": share, "episodes": episodes}
        for memory, row in MEMORIES.items()
        for name, share in SHARES.items()
    }


def play(settings: Part) -> Part:
    """Whether each episode had success."""
    seeds = protocol.evaluation_seeds(settings["episodes"])
    return {"success": success(built(settings["row"]), seeds, corrupted=settings["corrupted"])}


def conclude(played: Parts) -> Verdict:
    """It held if the latent keeps nine tenths of the successes of the context, for each share."""
    found = percent(played)
    rate = {name: one[0].mean() for name, one in found.items()}
    held = all(rate[f"latent, {name}"] >= 0.9 * rate[f"context, {name}"] for name in SHARES)
    lines: list[list[Any]] = [
        [memory, *(f"{mean(found[f'{memory}, {name}']):.1f}" for name in SHARES)] for memory in MEMORIES
    ]
    return bool(held), shared.table(["success %", *SHARES], lines) + (
        f"\n\nIn {len(next(iter(found.values()))[0])} episodes of one set of weights each, with 95% intervals.\n"
    )
