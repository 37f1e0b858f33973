"""What a run is to have: a cell for each row, task and training seed, and a timing for each row and task."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dfplan.benchmarks import provenance, reading, rows
from dfplan.benchmarks.protocol import BATCH
from dfplan.benchmarks.results import agent_folder, seed_name
from dfplan.envs.registry import Task, task

Key = Mapping[str, str | None]
"""As `dfplan.benchmarks.results.Result` has it."""


@dataclass(frozen=True)
class Wanted:
    """A result that is to be in the table, there already or not: all that a worker process needs to know of it."""

    agent: str
    """As `dfplan.benchmarks.rows.row` takes it."""
    env_id: str
    training_seed: int | None
    device: str = "cpu"
    seeds: tuple[int, ...] = ()
    """Reset seeds of a cell's episodes."""
    decisions: int = 0
    """Of a timing."""
    key: Key = field(default_factory=dict, hash=False)
    """A process whose code or weights are others refuses to play."""

    def __str__(self) -> str:
        return f"{self.name} on {self.env_id} ({seed_name(self.training_seed)})"

    @property
    def name(self) -> str:
        """Of the row, as tables show it."""
        return rows.shown(self.agent)

    @property
    def own(self) -> bool:
        """Whether it is of a user's own agent, whose results say which files it read."""
        return rows.row(self.agent).own

    @property
    def group(self) -> tuple[str, str]:
        """Cells that differ in their training seed only are a group."""
        return self.env_id, self.name

    def changed(self, key: Key, files: Mapping[str, str]) -> str | None:
        """What has changed since a result of this key and these files was made, in words; None if nothing has."""
        parts = [kind for kind, value in self.key.items() if key.get(kind) != value]
        if parts:
            return f"its {' and '.join(parts)} changed"
        if self.own and not files:
            return "it does not say which files the agent read"
        others = reading.changed(files)
        return f"{' and '.join(others[:3])} changed" if others else None


def key(agent: str, where: Task, training_seed: int | None, **protocol: Any) -> dict[str, str | None]:
    """What a row's results on a task depend on, with what of the protocol decides about them."""
    row = rows.row(agent)
    path, member = row.weights_file(where, training_seed), training_seed if row.stacked > 1 else None
    return {
        "code": provenance.code(),
        "config": provenance.data_hash({"agent": row.agent, "options": dict(row.options), "member": member}),
        "weights": None if path is None else provenance.file_hash(path),
        "protocol": provenance.data_hash(protocol),
    }


def wanted(
    tasks: Sequence[Task],
    agents: Sequence[str],
    seeds: Sequence[int],
    training_seeds: Sequence[int] | None = None,
    device: str = "cpu",
    first_only: bool = False,
) -> tuple[list[Wanted], list[str]]:
    """The cells of all agents on all tasks, and a sentence for each row that is left out on a task.

    Left out are rows that cannot play a task, and those without weights. `first_only`: of a row's training seeds only the
    first. Raises KeyError or FileNotFoundError for an agent that is not there, ValueError if no cell is left, or if two rows
    would be kept in the same folder.
    """
    found: list[Wanted] = []
    skipped = []
    chosen = {agent: rows.row(agent) for agent in agents}
    for where in tasks:
        fixed = {"env": where.env_id, "episode_steps": where.max_episode_steps, "first_seed": seeds[0], "batch": BATCH}
        for agent, row in chosen.items():
            try:
                refusal, having = row.refusal(where), row.training_seeds(where, training_seeds)
            except ValueError as error:
                refusal, having = row.refusal(where) or str(error), ()
            if refusal is not None:
                skipped.append(f"{agent} is left out on {where.env_id}: {refusal}")
                continue
            for seed in having[:1] if first_only else having:
                hashes = key(agent, where, seed, **fixed, device=device)
                found.append(Wanted(agent, where.env_id, seed, device, tuple(seeds), key=hashes))
    if not found:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise ValueError(f"nothing is left to play: {skipped[0]}{more}")
    owners: dict[str, str] = {}
    for name in (rows.shown(agent) for agent in agents):
        if owners.setdefault(agent_folder(name), name) != name:
            other, place = owners[agent_folder(name)], agent_folder(name)
            raise ValueError(f"the agents {other!r} and {name!r} would share the folder {place!r}")
    return found, skipped


def timings(cells: Sequence[Wanted], decisions: int) -> list[Wanted]:
    """One timing for each group of cells, of its first training seed."""
    found: dict[tuple[str, str], Wanted] = {}
    for cell in reversed(cells):
        found[cell.group] = cell
    return [
        replace(cell, seeds=(), decisions=decisions, key=_timing_key(cell)) for cell in reversed(list(found.values()))
    ]


def _timing_key(cell: Wanted) -> Key:
    return key(cell.agent, task(cell.env_id), cell.training_seed, env=cell.env_id, device=cell.device)


def train_missing(tasks: Sequence[Task], agents: Sequence[str], seeds: Sequence[int] | None) -> None:
    """Train the weights that rows lack, of these training seeds. ValueError for a task without recipes, or a failure."""
    for where in tasks:
        for row in map(rows.row, agents):
            while row.refusal(where) is None:
                try:
                    row.training_seeds(where, seeds)
                    break
                except rows.MissingWeightsError as missing:
                    words = [sys.executable, "-m", "dfplan.benchmarks.train", *missing.command]
                    if subprocess.run(words, check=False).returncode:
                        raise ValueError(f"training the weights {missing.weights!r} failed") from missing
                    if row.weights_file(where, missing.seed) is None:
                        raise
