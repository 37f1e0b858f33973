"""Whether search over partly denoised plans scores more the longer it searches, in D4RL's large maze.

The shipped weights are played with a small budget of one candidate of each of a few lengths, and with 4, 16 and 64 times as
many network evaluations in two ways: rounds of search, and, as the rival, as many more candidates from noise, of which the best
is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from dfplan.benchmarks.experiments import shared, variants
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.intervals import Estimate, mean

CLAIM = (
    "With 64 times the budget search scores more than with the budget of one, intervals apart, and more than as many "
    "candidates from noise."
)
PAGE = "planners"
MAZE, LENGTHS, STEPS = "maze2d-large", 5, 3
BUDGETS = (1, 4, 16, 64)
"""Multiples of the network evaluations of the smallest plan: of `LENGTHS` candidates."""
SEARCH, NOISE = "search", "candidates from noise"


def options(kind: str, budget: int) -> dict[str, Any]:
    """Options of the agent with which a plan takes so many times the evaluations of `LENGTHS` candidates."""
    fixed = {"horizons": LENGTHS, "steps": STEPS, "uncertainty": 0.0, "replan_every": 100}
    if kind == NOISE:
        return {**fixed, "samples": budget}
    return {**fixed, "rounds": budget - 1, "children": LENGTHS}


def parts(quick: bool) -> Settings:
    """Each budget in both ways, in 30 episodes, or 3."""
    fixed = {
        "maze": MAZE,
        "recipe": "default",
        "episodes": 3 if quick else 30,
        "sha256": variants.digest(MAZE, "default"),
    }
    found = {f"{SEARCH}, 1": {**fixed, "options": options(SEARCH, 1)}}
    return found | {
        f"{kind}, {budget}": {**fixed, "options": options(kind, budget)}
        for kind in (SEARCH, NOISE)
        for budget in BUDGETS[1:]
    }


def play(settings: Part) -> Part:
    """The raw returns of one part."""
    return variants.play(settings)


def scores(played: Parts, kind: str, budget: int) -> Any:
    """Normalized scores of a part's episodes; the smallest budget is the same for both ways."""
    named = {f"{MAZE}, {name}": part for name, part in played.items()}
    return variants.scores(named, MAZE, f"{SEARCH if budget == 1 else kind}, {budget}")


def lines(played: Parts) -> Mapping[str, Mapping[int, Estimate]]:
    """The mean score at each budget, for both ways."""
    return {kind: {budget: mean([scores(played, kind, budget)]) for budget in BUDGETS} for kind in (SEARCH, NOISE)}


def conclude(played: Parts) -> Verdict:
    """It held if the intervals of the smallest and the largest search are apart, and the paired gain over noise is above 0."""
    found = lines(played)
    gain = shared.difference([scores(played, SEARCH, BUDGETS[-1])], [scores(played, NOISE, BUDGETS[-1])])
    held = shared.above(found[SEARCH][BUDGETS[-1]], found[SEARCH][1]) and shared.above(gain, 0.0)
    rows = [[kind, *(f"{one:.1f}" for one in line.values())] for kind, line in found.items()]
    episodes = len(played[f"{SEARCH}, 1"]["returns"])
    return held, shared.table(["budget", *(f"{budget}" for budget in BUDGETS)], rows) + (
        f"\n\nMean normalized score of {episodes} episodes with its 95% interval, by multiples of the smallest budget. Paired "
        f"gain of search over candidates from noise at the largest: {gain:+.1f}.\n"
    )


def figure(played: Parts) -> Figure:
    """Scores over the budget."""
    return shared.plot({MAZE: lines(played)}, "network evaluations of a plan, multiples", "normalized score", log=True)
