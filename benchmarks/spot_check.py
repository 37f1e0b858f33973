"""Play the first episodes of recorded results again: are the records what this code plays?

    python benchmarks/spot_check.py
    python benchmarks/spot_check.py --env maze2d-umaze --agents iql sac expert

Of each row and environment the first training seed's first batch is played, from the record's own reset seeds, and one line
says how its returns compare. On the processor and with the versions of the record they are equal to the digit. Others round
in another way, by which an episode may change as a whole: there the mean difference must not be told from 0. Exit status 1
where a record is not confirmed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfplan import command, intervals
from dfplan.benchmarks import play, provenance, results, rows
from dfplan.benchmarks.protocol import Episodes, batches
from dfplan.benchmarks.results import Cell
from dfplan.benchmarks.wanted import Wanted, wanted
from dfplan.envs.registry import find, task
from dfplan.worker_processes import workers


@dataclass(frozen=True)
class Arguments:
    """Which records to confirm."""

    env: tuple[str, ...] = ()
    """Environments, with or without their version; without it all that have records."""
    agents: tuple[str, ...] = ()
    """Rows; without it all that have records."""
    threads: int = min(2, os.cpu_count() or 1)
    """Processes that play."""
    recorded: Path = results.RECORDED
    """Folder of the records."""


@dataclass(frozen=True)
class Again:
    """What is played again of a cell, or what was."""

    episodes: Episodes
    config: Mapping[str, Any]
    """Of its agent."""
    machine: Mapping[str, Any]
    """Its processor, and the versions of what the numbers depend on."""


def chosen(arguments: Arguments) -> list[Cell]:
    """The first training seed's cell of each row and environment. ValueError if there is none; KeyError for unknown names."""
    envs, names = {find(name).env_id for name in arguments.env}, set(map(rows.shown, arguments.agents))
    for name in arguments.agents:
        rows.row(name)
    found: dict[tuple[str, str], Cell] = {}
    for cell in results.cells_in(arguments.recorded):
        if (not envs or cell.env_id in envs) and (not names or cell.agent in names):
            found.setdefault((cell.env_id, cell.agent), cell)
    if not found:
        raise ValueError(f"{arguments.recorded} holds no record of these rows in these environments")
    return list(found.values())


def asked(cell: Cell) -> Wanted:
    """The first batch of a cell, by the code and the weights of today."""
    seeds = None if cell.training_seed is None else [cell.training_seed]
    (found,), _ = wanted([task(cell.env_id)], [cell.agent], batches(cell.seeds)[0], seeds, cell.device)
    return found


def again(cell: Wanted) -> Again:
    """Play it: what a worker process is asked for."""
    return Again(play.play_batch(cell, cell.seeds), play.describe(cell)["config"], _machine(provenance.hardware()))


def _machine(hardware: Mapping[str, Any], versions: Mapping[str, str] | None = None) -> dict[str, Any]:
    own = provenance.versions() if versions is None else versions
    return {"processor": hardware.get("cpu")} | {name: own.get(name) for name in ("torch", "numpy", "mujoco")}


def compare(cell: Cell, weights: str | None, played: Again) -> tuple[bool, str]:
    """Whether a record is confirmed, and the sentence that says so or why not.

    `weights`: sha256 of the file that the row loads today.
    """
    recorded = cell.returns[: len(played.episodes.seeds)]
    other = [name for name, value in _machine(cell.hardware, cell.versions).items() if value != played.machine[name]]
    if cell.key.weights != weights:
        return False, "NOT CONFIRMED, the row loads other weights than were recorded"
    if changed := _changed(cell.config, played.config):
        return False, f"NOT CONFIRMED, the agent has another {changed} than was recorded"
    if played.episodes.returns == recorded:
        return True, f"{len(recorded)} episodes are equal to the digit"
    difference = intervals.compare(played.episodes.returns, recorded)
    low, high = difference.low, difference.high
    confirmed = bool(other) and (low is None or high is None or low <= 0 <= high)
    where = f"on another {' and '.join(other)}" if other else "on the same processor with the same versions"
    verdict = "" if confirmed else "NOT CONFIRMED, "
    return confirmed, f"{verdict}{len(recorded)} episodes differ by {difference:+.1f} in their mean return {where}"


def _changed(recorded: Mapping[str, Any], today: Mapping[str, Any]) -> str | None:
    """The first field of the recorded configuration that has another value today; fields that are gone do not count."""
    for name in recorded.keys() & today.keys():
        old, new = recorded[name], today[name]
        if isinstance(old, dict) and isinstance(new, dict):
            if (inner := _changed(old, new)) is not None:
                return f"{name}.{inner}"
        elif old != new:
            return name
    return None


@command.with_arguments(Arguments, __doc__)
def main(arguments: Arguments) -> int:
    """Play the first batches again and say of each record whether it is confirmed."""
    if arguments.threads < 1:
        raise ValueError(f"threads must be at least 1, not {arguments.threads}")
    jobs = {(cell.env_id, cell.agent): (cell, asked(cell)) for cell in chosen(arguments)}
    failed = 0
    with workers(arguments.threads) as pool:
        for name, played in pool.ended({name: (again, ask) for name, (_, ask) in jobs.items()}):
            cell, ask = jobs[name]
            confirmed, sentence = compare(cell, ask.key.weights, played)
            failed += not confirmed
            print(f"{ask}: {sentence}", flush=True)
    print(f"{len(jobs) - failed} of {len(jobs)} records are confirmed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
