"""OGBench's maze with teleports: whether a choice by the mean time over futures is better than the shortest plausible plan.

An entrance leads to one of three exits at random, and one of these is a sealed cell. A plan to a known goal that leads
through an entrance shows the lucky exit, so it is short and plausible. One model, with the
weights of the default recipe, is played with both ways to choose.
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
    "In pointmaze-teleport-navigate, by the stock protocol, candidates weighed by their mean time over futures succeed in at "
    "least 60% of the episodes, and more often than the shortest plausible plan."
)
PAGE = "ogbench-mazes"
TASK = "pointmaze-teleport-navigate"
BATCH, JUMP = 25, 2.0
"""Episodes in lockstep, and the length of a step that only a teleport can make."""
SHORTEST, TRIED = "shortest plausible plan", "mean time over 8 futures"
VARIANTS: dict[str, dict[str, Any]] = {SHORTEST: {"trials": 0, "margin": -4.0}, TRIED: {}}
"""Both choose among the same candidates. Without trials a stricter margin was better on tuning seeds."""


def parts(quick: bool) -> Settings:
    """Each variant on the same episodes, 20 of each of the five tasks or one."""
    episodes = 5 if quick else protocol.EPISODES
    return {name: {"options": options, "episodes": episodes} for name, options in VARIANTS.items()}


def play(settings: Part) -> Part:
    """Whether each episode had success, its steps, and how often it was teleported."""
    task = find(TASK)
    agent = rows.row("diffusion-forcing").build(task, seed=0).with_options(**settings["options"])
    seeds = protocol.evaluation_seeds(settings["episodes"])
    played, teleports = [], []
    for batch in protocol.batches(seeds, BATCH):
        seen: list[Any] = []

        def watch(agent: Any, observations: Any, infos: Any, seen: list[Any] = seen) -> None:
            seen.append(np.array(observations))

        played.append(protocol.play(agent, task.env_id, batch, watch=watch))
        teleports += (np.linalg.norm(np.diff(seen, axis=0), axis=-1) > JUMP).sum(0).tolist()
    found = protocol.join(played)
    return {"success": found.success, "lengths": found.lengths, "teleports": teleports}


def conclude(played: Parts) -> Verdict:
    """It held if the mean time over futures reaches 60%, and the interval of its paired gain lies above 0."""
    success = {name: 100 * np.asarray(part["success"], float) for name, part in played.items()}
    head = ["how a plan is chosen", "success %", *(f"task {number}" for number in range(1, 6)), "teleports", "steps"]
    lines = []
    for name, part in played.items():
        tasks = success[name].reshape(-1, 5).mean(0)  # tasks are taken in turn
        steps = np.asarray(part["lengths"])[success[name] > 0]
        lines.append([name, f"{mean([success[name]]):.1f}", *(f"{one:.0f}" for one in tasks)])
        lines[-1] += [f"{np.mean(part['teleports']):.1f}", f"{steps.mean():.0f}" if len(steps) else "-"]
    gain = shared.difference([success[TRIED]], [success[SHORTEST]])
    episodes = len(success[TRIED])
    return bool(success[TRIED].mean() >= 60 and shared.above(gain, 0.0)), shared.table(head, lines) + (
        f"\n\nSuccess in {episodes} episodes with its 95% interval and by task, teleports in an episode, and the steps that "
        f"successful episodes took. Paired gain of the mean time over the shortest plan: {gain:+.1f}.\n"
    )
