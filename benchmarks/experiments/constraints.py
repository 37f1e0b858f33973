"""A constraint that training never saw, in D4RL's large maze: a passage is closed.

Two passages lead from the upper right of the maze to the goal. The shipped weights are played from there as they are, and then
with the passage that they took closed by a region to keep out of, from the same starts: the other way must be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.episodes import play as play_together
from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import shared, variants
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.benchmarks.report.figures import BLUE, INK, ORANGE
from dfplan.benchmarks.report.pictures import draw_maze
from dfplan.envs.maze.layouts import WALL_SHIFT, named
from dfplan.envs.reference import normalized_score
from dfplan.envs.registry import find
from dfplan.intervals import mean
from dfplan.planning.ask import Ask, Cost
from dfplan.planning.constraints import KeepOut

CLAIM = (
    "With a passage closed by a constraint, at least 90% fewer steps of executed episodes lie in it than without, and at least "
    "90% of the score is kept."
)
PAGE = "planners"
MAZE = "maze2d-large"
CLOSED = "closed passage"
PASSAGES = np.array([[4, 6], [4, 10]]) + WALL_SHIFT
"""The middles of the two passages, as the point sees them."""
START = ((0.4, 2.3), (6.4, 9.3))
"""Where episodes start, low and high along both axes: there the ways through both passages are about as long."""
RADIUS, MARGIN = 0.5, 0.1
"""Of the closed region, in cells, and how much more is asked for, because a plan is not followed exactly."""
OPTIONS = {"rounds": 6}
"""Of the agent, when it is asked for the constraint."""
EVERY, SHOWN = 5, 4
"""Steps between two places of the paths that a result file keeps, and how many paths are shown."""
Array = NDArray[np.float64]


def parts(quick: bool) -> Settings:
    """20 episodes, or 4."""
    settings = {"episodes": 4 if quick else 20, "margin": MARGIN, "options": OPTIONS}
    return {CLOSED: {**settings, "sha256": variants.digest(MAZE, "default")}}


def play(settings: Part) -> Part:
    """Returns, and steps in the closed region, before and after; the regions, and for pictures some paths."""
    agent = DiffusionForcingAgent.load(variants.weights(MAZE, "default"))
    return pair(agent, settings, protocol.EVALUATION_SEEDS)


def pair(agent: Any, settings: Part, seeds: Sequence[int]) -> dict[str, Any]:
    """What `play` finds with an agent on the first of these reset seeds that will do."""
    constrained, radius = agent.with_options(**settings["options"]), RADIUS + settings["margin"]
    chosen = starts(settings["episodes"], seeds)
    before = [drive(agent, seed) for seed in chosen]
    closed = [PASSAGES[nearest(path)] for path, _ in before]
    regions = [KeepOut(torch.tensor(one[None], dtype=torch.float32), radius, (0, 1), weight=20.0) for one in closed]
    after = [drive(constrained, seed, region) for seed, region in zip(chosen, regions, strict=True)]
    return {"closed": shared.rounded(closed)} | {
        name: {
            "returns": [found for _, found in side],
            "violations": [
                int((np.linalg.norm(path[:, :2] - one, axis=1) < RADIUS).sum())
                for one, (path, _) in zip(closed, side, strict=True)
            ],
            "paths": [shared.rounded(path[::EVERY, :2]) for path, _ in side[:SHOWN]],
        }
        for name, side in (("before", before), ("after", after))
    }


def starts(count: int, seeds: Sequence[int]) -> list[int]:
    """The first seeds whose episodes start where either passage may be taken."""
    env, found = find(MAZE).make(disable_env_checker=True), []
    for seed in seeds:
        place = env.reset(seed=int(seed))[0][:2]
        found += [int(seed)] if all(low < at < high for at, (low, high) in zip(place, START, strict=True)) else []
        if len(found) == count:
            break
    return found


def drive(agent: Any, seed: int, constraint: Cost | None = None) -> tuple[Array, float]:
    """The observations (steps + 1, 4) of one episode, and its return."""
    seen: list[Any] = []
    task = find(MAZE)
    played = play_together(
        agent,
        [task.make(disable_env_checker=True)],
        [protocol.start(task.env_id, seed)],
        watch=lambda agent, observations, infos: seen.append(np.array(observations[0], np.float64)),
        longest=task.max_episode_steps,
        asked={"ask": Ask(constraints=() if constraint is None else (constraint,))},
    )
    return np.array(seen), played.returns[0]


def nearest(path: Array) -> int:
    """Which of the passages a path came nearest to."""
    return int(np.linalg.norm(path[:, None, :2] - PASSAGES, axis=-1).min(0).argmin())


def conclude(played: Parts) -> Verdict:
    """It held if there are at least 90% fewer violations, and at least 90% of the score is kept."""
    lines, held = [], True
    for name, part in played.items():
        scores, violations = (
            [np.asarray(values, float) for values in found]
            for found in (
                [normalized_score(f"{MAZE}-v1", part[side]["returns"]) for side in ("before", "after")],
                [part[side]["violations"] for side in ("before", "after")],
            )
        )
        fewer, kept = 1 - violations[1].sum() / max(violations[0].sum(), 1), scores[1].mean() / scores[0].mean()
        held &= bool(fewer >= 0.9 and kept >= 0.9)
        steps = [f"{one.mean():.1f}" for one in violations]
        cells = [f"{mean([one]):.1f}" for one in scores]
        lines.append([name, *steps, f"{fewer:.1%}", *cells, f"{kept:.1%}", f"{(violations[1] == 0).mean():.0%}"])
    head = [
        "constraint",
        "violating steps before",
        "after",
        "fewer",
        "score before",
        "after",
        "kept",
        "episodes without any",
    ]
    episodes = len(next(iter(played.values()))["before"]["returns"])
    return held, shared.table(head, lines) + (
        f"\n\nSteps of an executed episode that violate, and normalized scores with their 95% intervals, in {episodes} "
        "episodes, from the same starts before and after.\n"
    )


def figure(played: Parts) -> Figure:
    """Executed paths before and after a passage is closed."""
    part = played[CLOSED]
    drawn = Figure(figsize=(3.2 * len(part["before"]["paths"]), 2.8), layout="constrained")
    row = drawn.subplots(1, len(part["before"]["paths"]), squeeze=False)[0]
    for at, axes in enumerate(row):
        draw_maze(axes, named("large"), np.array([7.0, 9.0]))
        for side, color in (("before", ORANGE), ("after", BLUE)):
            x, y = np.array(part[side]["paths"][at]).T
            axes.plot(y, x, color=color, lw=2, label=side)
        axes.add_patch(Circle(tuple(part["closed"][at][::-1]), RADIUS, color=INK, alpha=0.35, lw=0))
    handles, names = row[-1].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    return drawn
