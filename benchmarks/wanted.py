"""What a run is asked for, as data: cells and timings, each with the key that says what it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dfplan.benchmarks import fingerprint, rows
from dfplan.benchmarks.cells import Cell, Timing, agent_folder, seed_name
from dfplan.benchmarks.fingerprint import Key
from dfplan.benchmarks.protocol import BATCH
from dfplan.benchmarks.workers import Player
from dfplan.envs.registry import Task


@dataclass(frozen=True)
class Wanted:
    """A cell that is to be in the table, played already or not."""

    name: str
    """Of the row, as tables show it."""
    task: Task
    player: Player
    seeds: tuple[int, ...]
    """Reset seeds of its episodes."""
    key: Key

    def __str__(self) -> str:
        return f"{self.name} on {self.player.env_id} ({seed_name(self.player.training_seed)})"

    @property
    def group(self) -> tuple[str, str]:
        """Cells that differ in their training seed only are a group."""
        return self.task.env_id, self.name

    def accepts(self, key: Mapping[str, str | None], files: Mapping[str, str]) -> bool:
        """Whether what has this key, and was played after these files had been read, belongs to it."""
        return _differs(self.player, self.key, key, files) is None

    def differs(self, cell: Cell) -> str | None:
        """Why a cell of the same agent and episodes, or more of them, is not what is wanted; None if it is."""
        return _differs(self.player, self.key, cell.key, cell.files) or (
            None if len(cell.seeds) >= len(self.seeds) else f"it has {len(cell.seeds)} of {len(self.seeds)} episodes"
        )


@dataclass(frozen=True)
class WantedTiming:
    """A timing that is to be in the table."""

    name: str
    task: Task
    player: Player
    decisions: int
    key: Key

    def differs(self, timing: Timing, hardware: dict[str, object]) -> str | None:
        """Why a timing is not what is wanted; None if it has the same key, and so many decisions on the same hardware."""
        if timing.agent != self.name or timing.hardware != hardware:
            return "it is of another agent or other hardware"
        return _differs(self.player, self.key, timing.key, timing.files) or (
            None if timing.decisions >= self.decisions else f"it is of {timing.decisions} decisions"
        )


def _differs(player: Player, key: Key, other: Mapping[str, str | None], files: Mapping[str, str]) -> str | None:
    changed = [kind for kind, value in key.to_dict().items() if other.get(kind) != value]
    if changed:
        return f"its {' and '.join(changed)} changed"
    if rows.is_own(player.agent) and not files:
        return "it does not say which files the agent read"
    changed = fingerprint.changed(files)
    return f"{' and '.join(changed[:3])} changed" if changed else None


SeedsOf = Callable[[rows.Row, Task], Sequence[int | None]]
"""Which training seeds of a row are to be played. MissingWeightsError if they are not there."""


def wanted(
    tasks: Sequence[Task], agents: Sequence[str], seeds: range, device: str, seeds_of: SeedsOf, *, skip: bool = True
) -> tuple[list[Wanted], list[str]]:
    """The cells of all agents on all tasks, and a sentence for each row that is left out on a task.

    Left out are rows that cannot play a task, and, if ``skip``, those without weights, which otherwise raise ValueError.
    Raises KeyError, ValueError or FileNotFoundError for an agent that is not there, ValueError if no cell is left.
    """
    named = {agent: rows.row(agent) for agent in agents}
    found, skipped = [], []
    for task in tasks:
        for agent, row in named.items():
            refusal = row.refusal(task)
            try:
                training_seeds = seeds_of(row, task) if refusal is None else ()
            except ValueError as error:
                if not skip:
                    raise
                training_seeds, refusal = (), str(error)
            if refusal is not None:
                skipped.append(f"{agent} is left out on {task.env_id}: {refusal}")
            found += [_wanted(agent, row, task, seeds, device, seed) for seed in training_seeds]
    if not found:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise ValueError(f"nothing is left to play: {skipped[0]}{more}")
    _distinct(found)
    return found, skipped


def _wanted(agent: str, row: rows.Row, task: Task, seeds: range, device: str, seed: int | None) -> Wanted:
    protocol = {
        "env": task.env_id,
        "episode_steps": task.max_episode_steps,
        "first_seed": seeds.start,
        "batch": BATCH,
        "device": device,
    }
    key = row.key(task, seed, protocol)
    return Wanted(rows.shown(agent), task, Player(agent, task.env_id, seed, device, key), tuple(seeds), key)


def timings(cells: Sequence[Wanted], decisions: int) -> list[WantedTiming]:
    """One timing for each group, of its first training seed."""
    first = {cell.group: cell for cell in reversed(cells)}
    return [_timing(first[group], decisions) for group in dict.fromkeys(cell.group for cell in cells)]


def _timing(cell: Wanted, decisions: int) -> WantedTiming:
    row, seed = rows.row(cell.player.agent), cell.player.training_seed
    protocol = {"env": cell.task.env_id, "device": cell.player.device}
    key = row.key(cell.task, seed, protocol, "dfplan.benchmarks.timing")
    # The player keeps the cell's key, so that a process which has built the agent for playing has it for timing.
    return WantedTiming(cell.name, cell.task, cell.player, decisions, key)


def _distinct(cells: Sequence[Wanted]) -> None:
    """ValueError if two rows would be kept in the same folder."""
    owners: dict[str, str] = {}
    for cell in cells:
        other = owners.setdefault(agent_folder(cell.name), cell.name)
        if other != cell.name:
            raise ValueError(f"the agents {other!r} and {cell.name!r} would share the folder {agent_folder(cell.name)!r}")
