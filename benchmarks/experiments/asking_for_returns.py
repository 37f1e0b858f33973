"""What asking for a return, and a learned value of plans, add to imitation: one set of weights, a hopper's mixed data."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfplan.agents.loading import load
from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import shared, variants
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.envs.registry import find
from dfplan.intervals import mean

CLAIM = (
    "On a hopper's mixed data, the same weights gain more when asked for the return that nine of ten recorded episodes stay "
    "below than when they imitate, with and without noise, and more when guided by the learned value than when they imitate; "
    "asked for that return, without noise, they gain more than behavior cloning."
)
PAGE = "your-own-task"
TASK = "hopper-mixed-own"
BATCH = 25
"""Episodes in lockstep."""
IMITATION, ASKED, GUIDED, BEST = "imitation", "asked for the 90% return", "guided by value", "the best of 8 by value"
CLONING, CALM = "behavior cloning", ", without noise"
FREE: dict[str, Any] = {"return_quantile": None, "temperature": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    IMITATION: FREE,
    GUIDED: {**FREE, "value_scale": 1.0},
    BEST: {**FREE, "samples": 8},
    ASKED: {"return_quantile": 0.9, "temperature": 1.0},
    IMITATION + CALM: {"return_quantile": None, "temperature": 0.0},
    "asked for the 50% return" + CALM: {"return_quantile": 0.5, "temperature": 0.0},
    ASKED + CALM: {"return_quantile": 0.9, "temperature": 0.0},
    "asked for the highest return" + CALM: {"return_quantile": 1.0, "temperature": 0.0},
}
"""The first four draw samples of what was recorded; without noise sampling ends at the most common of it, as cloning does."""


def parts(quick: bool) -> Settings:
    """Each variant, and behavior cloning of the same data, on the same starts."""
    episodes = 5 if quick else protocol.EPISODES
    acting = {name: ("default", options) for name, options in VARIANTS.items()} | {CLONING: ("bc", {})}
    return {
        name: {"recipe": recipe, "sha256": variants.digest(TASK, recipe), "options": options, "episodes": episodes}
        for name, (recipe, options) in acting.items()
    }


def play(settings: Part) -> Part:
    """Raw returns and lengths of episodes."""
    member = 0 if settings["recipe"] == "bc" else None  # of the training seeds in one file
    agent = load(variants.weights(TASK, settings["recipe"]), member)
    if settings["options"]:
        agent = agent.with_options(**settings["options"])
    seeds = protocol.evaluation_seeds(settings["episodes"])
    found = protocol.evaluate(agent, find(TASK).env_id, seeds, batch=BATCH)
    return {"returns": list(found.returns), "lengths": list(found.lengths)}


def conclude(played: Parts) -> Verdict:
    """It held if the interval of each paired gain that is claimed lies above 0."""
    returns = {name: np.asarray(part["returns"]) for name, part in played.items()}

    def gain(name: str, other: str) -> Any:
        return shared.difference([returns[name]], [returns[other]])

    def line(name: str) -> list[Any]:
        steps = np.mean(played[name]["lengths"])
        gains = gain(name, IMITATION), gain(name, CLONING)
        return [name, f"{mean([returns[name]]):.0f}", *(f"{one:+.0f}" for one in gains), f"{steps:.0f}"]

    head = ["how it acts", "return", "over imitation", "over cloning", "steps"]
    table = shared.table(head, [line(name) for name in returns])
    claimed = (ASKED, IMITATION), (ASKED + CALM, IMITATION + CALM), (GUIDED, IMITATION), (ASKED + CALM, CLONING)
    episodes = len(returns[IMITATION])
    return all(shared.exceeds([returns[one]], [returns[other]]) for one, other in claimed), table + (
        f"\n\nMean raw return of {episodes} episodes of up to 1,000 steps, paired differences on the same starts, with their "
        "95% intervals, and the steps until a fall or the end.\n"
    )
