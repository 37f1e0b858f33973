"""What a run is to have: a cell for each row, task and training seed, and a timing for each row and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dfplan.benchmarks import own, provenance, rows
from dfplan.benchmarks.protocol import BATCH
from dfplan.benchmarks.results import Key, agent_folder, seed_name
from dfplan.envs.registry import Task, task


@dataclass(frozen=True)
class Wanted:
    """A result that is to be in the table, there already or not: all that a worker process needs."""

    agent: str
    """As `dfplan.benchmarks.rows.row` takes it."""
    env_id: str
    training_seed: int | None
    device: str
    key: Key
    """A process whose code or weights are others refuses to play."""
    seeds: tuple[int, ...] = ()
    """Reset seeds of a cell's episodes."""
    decisions: int = 0
    """Of a timing."""

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
    def about(self) -> dict[str, Any]:
        """What a result has of it."""
        same = {name: getattr(self, name) for name in ("env_id", "training_seed", "device", "key")}
        return same | {"agent": self.name}

    def changed(self, key: Key, files: Mapping[str, str]) -> str | None:
        """What has changed since a result of this key and these files was made, in words; None if nothing has."""
        parts = key.others(self.key)
        parts = [f"its {' and '.join(parts)}"] if parts else own.changed(files)[:3]
        return f"{' and '.join(parts)} changed" if parts else None


def key(agent: str, where: Task, training_seed: int | None, **protocol: Any) -> Key:
    """What a row's results on a task depend on, with what of the protocol decides about them."""
    row = rows.row(agent)
    path, member = row.weights_file(where, training_seed), training_seed if row.stacked > 1 else None
    return Key(
        code=provenance.code(),
        config=provenance.data_hash({"agent": row.agent, "options": dict(row.options), "member": member}),
        weights=None if path is None else provenance.file_hash(path),
        protocol=provenance.data_hash(protocol),
    )


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
    for where in tasks:
        fixed = {"env": where.env_id, "episode_steps": where.max_episode_steps, "first_seed": seeds[0], "batch": BATCH}
        for agent, row in {agent: rows.row(agent) for agent in agents}.items():
            try:
                having = row.training_seeds(where, training_seeds)
            except ValueError as error:
                skipped.append(f"{agent} is left out on {where.env_id}: {error}")
                continue
            for seed in having[:1] if first_only else having:
                hashes = key(agent, where, seed, **fixed, device=device)
                found.append(Wanted(agent, where.env_id, seed, device, hashes, tuple(seeds)))
    if not found:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise ValueError(f"nothing is left to play: {skipped[0]}{more}")
    names = {rows.shown(agent) for agent in agents}
    if len({agent_folder(name) for name in names}) < len(names):
        raise ValueError(f"two of the agents {', '.join(sorted(names))} would share a folder")
    return found, skipped


def timings(cells: Sequence[Wanted], decisions: int) -> list[Wanted]:
    """One timing for each row on each task, of its first training seed."""
    firsts: dict[tuple[str, str], Wanted] = {}
    for cell in cells:
        own_key = key(cell.agent, task(cell.env_id), cell.training_seed, env=cell.env_id, device=cell.device)
        firsts.setdefault((cell.env_id, cell.name), replace(cell, seeds=(), decisions=decisions, key=own_key))
    return list(firsts.values())
