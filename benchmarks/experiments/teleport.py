"""OGBench's maze with teleports: whether plans are better that were learned from data which are cut where chance decided.

An entrance leads to one of three exits at random, and one of these is a sealed cell. A plan to a known goal that leads
through an entrance shows the lucky exit, so it is short and plausible. A model of the recipe 'plans', which has learned from
all data, is played with two ways to choose among its candidates. The one of the default recipe has no lucky candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dfplan.benchmarks import protocol, rows
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.envs.registry import find
from dfplan.intervals import mean

CLAIM = (
    "In pointmaze-teleport-navigate, by the stock protocol, plans learned from data that are cut where chance decided succeed "
    "in at least 60% of the episodes, and more often than plans learned from all data, weighed by their mean time over futures."
)
PAGE = "ogbench-mazes"
TASK = "pointmaze-teleport-navigate"
EPISODES, JUMP = 25, 2.0
"""Episodes, in lockstep, and the length of a step that only a teleport can make."""
SHORTEST, TRIED = "all data, shortest plausible plan", "all data, mean time over 8 futures"
CUT = "data cut where chance decided"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    SHORTEST: ("diffusion-forcing-plans", {"trials": 0, "margin": -4.0}),
    TRIED: ("diffusion-forcing-plans", {}),
    CUT: ("diffusion-forcing", {}),
}
"""The row whose weights are played, and its options. Without trials a stricter margin was better on tuning seeds."""


def parts(quick: bool) -> Settings:
    """Each variant on the same episodes, 5 of each of the five tasks or one."""
    episodes = 5 if quick else EPISODES
    return {name: {"row": row, "options": options, "episodes": episodes} for name, (row, options) in VARIANTS.items()}


def play(settings: Part) -> Part:
    """Whether each episode had success, its steps, and how often it was teleported."""
    task = find(TASK)
    agent = rows.row(settings["row"]).build(task, seed=0).with_options(**settings["options"])
    seeds = protocol.evaluation_seeds(settings["episodes"])
    seen: list[Any] = []
    found = protocol.play(
        agent, task.env_id, seeds, watch=lambda agent, observations, infos: seen.append(np.array(observations))
    )
    teleports = (np.linalg.norm(np.diff(seen, axis=0), axis=-1) > JUMP).sum(0)
    return {"success": found.success, "lengths": found.lengths, "teleports": teleports.tolist()}


def conclude(played: Parts) -> Verdict:
    """It held if cut data reach 60%, and the interval of their paired gain over the mean time over futures lies above 0."""
    success = {name: 100 * np.asarray(part["success"], float) for name, part in played.items()}
    head = ["plans", "success %", *(f"task {number}" for number in range(1, 6)), "teleports", "steps"]
    lines = []
    for name, part in played.items():
        tasks = success[name].reshape(-1, 5).mean(0)  # tasks are taken in turn
        steps = np.asarray(part["lengths"])[success[name] > 0]
        lines.append([name, f"{mean([success[name]]):.1f}", *(f"{one:.0f}" for one in tasks)])
        lines[-1] += [f"{np.mean(part['teleports']):.1f}", f"{steps.mean():.0f}" if len(steps) else "-"]
    gain = shared.difference([success[CUT]], [success[TRIED]])
    episodes = len(success[CUT])
    return bool(success[CUT].mean() >= 60 and shared.above(gain, 0.0)), shared.table(head, lines) + (
        f"\n\nSuccess in {episodes} episodes with its 95% interval and by task, teleports in an episode, and the steps that "
        f"successful episodes took. Paired gain of the cut data over the mean time over futures: {gain:+.1f}.\n"
    )
