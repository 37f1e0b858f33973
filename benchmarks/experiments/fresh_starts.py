"""Whether the intervals of the table hold: twenty recorded rows are played again on starts that nobody has played."""

from __future__ import annotations

from math import hypot
from typing import Any

from dfplan.benchmarks import protocol, results, rows
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.envs.registry import find
from dfplan.intervals import Estimate, mean

CLAIM = (
    "Of twenty recorded rows that are played again by the same weights on fresh starts, the mean scores of eighteen or more "
    "agree: the difference lies inside its joint 95% interval."
)
PAGE = "protocol"
BLOCK = 1
"""Of the evaluation's seeds; the table has block 0."""
OFFLINE = ("bc", "iql", "cql", "td3-bc", "awac")
PLAYED = {
    "maze2d-umaze": ("diffusion-forcing", "graph-search", *OFFLINE, "sac", "ppo", "her", "expert", "random"),
    "maze2d-medium": (*OFFLINE[1:], "graph-search"),
    "maze2d-large": ("iql", "td3-bc", "awac"),
}
"""Rows whose episodes take seconds."""


def parts(quick: bool) -> Settings:
    """Each row on 100 fresh starts with each training seed, or on 5."""
    episodes = 5 if quick else protocol.EPISODES
    return {
        f"{agent}, {env}": {"env": env, "agent": agent, "block": BLOCK, "episodes": episodes}
        for env, agents in PLAYED.items()
        for agent in agents
    }


def play(settings: Part) -> Part:
    """Scores of each training seed: of the recorded episodes, and of the fresh ones."""
    task, row = find(settings["env"]), rows.row(settings["agent"])
    seeds = protocol.evaluation_seeds(settings["episodes"], settings["block"])
    cells = [
        cell
        for cell in results.cells_in(results.RECORDED)
        if (cell.env_id, cell.agent) == (task.env_id, settings["agent"])
    ]
    agents = [row.build(task, seed=cell.training_seed) for cell in cells]
    fresh = [protocol.evaluate(agent, task.env_id, seeds) for agent in agents]
    return {
        "recorded": [scores(cell, cell) for cell in cells],
        "fresh": [scores(cell, played) for cell, played in zip(cells, fresh, strict=True)],
    }


def scores(cell: results.Cell, played: results.Cell | protocol.Episodes) -> list[Any]:
    """Of the episodes that were played, in the unit of a recorded cell."""
    return shared.rounded(protocol.score(cell.reference, played.returns, played.success)[1])


def agrees(recorded: Estimate, fresh: Estimate) -> bool:
    """Whether two independent means differ by less than their difference's own half interval, hypot of both."""
    difference = fresh.value - recorded.value
    sides = (recorded.low, fresh.high) if difference < 0 else (recorded.high, fresh.low)
    halves = [0.0 if side is None else side - one.value for side, one in zip(sides, (recorded, fresh), strict=True)]
    return abs(difference) <= hypot(*halves)


def conclude(played: Parts) -> Verdict:
    """It held if nine rows of ten agree."""
    lines, agreed = [], 0
    for part in played.values():
        recorded, fresh = (mean(part[name], same_starts=True) for name in ("recorded", "fresh"))
        agreed += (same := agrees(recorded, fresh))
        settings = part["settings"]
        lines.append(
            [settings["agent"], settings["env"], len(part["fresh"]), recorded, fresh, "yes" if same else "**no**"]
        )
    head = ["row", "environment", "training seeds", "recorded", "fresh starts", "agree"]
    return agreed >= 0.9 * len(played), shared.table(head, lines, ".1f") + (
        f"\n\nMean scores with their 95% intervals over episodes of these weights. {agreed} of {len(played)} rows agree.\n"
    )
