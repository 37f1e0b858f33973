"""What a run is asked for, as data: cells and timings, each with the key that says what it depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dfplan.benchmarks import registry
from dfplan.benchmarks.cells import Cell, Timing, agent_folder, seed_name
from dfplan.benchmarks.fingerprint import Key
from dfplan.benchmarks.protocol import BATCH
from dfplan.benchmarks.workers import Player
from dfplan.envs.tasks import Task


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

    def fits(self, cell: Cell) -> bool:
        """Whether a cell is what is wanted: the same key, and the wanted episodes or those and more."""
        same = cell.agent == self.name and cell.env_id == self.task.env_id and cell.key == self.key.to_dict()
        return same and cell.seeds[: len(self.seeds)] == list(self.seeds)


@dataclass(frozen=True)
class WantedTiming:
    """A timing that is to be in the table."""

    name: str
    task: Task
    player: Player
    decisions: int
    key: Key

    def fits(self, timing: Timing, hardware: dict[str, object]) -> bool:
        """Whether a timing is what is wanted: the same key, on the same hardware, of so many decisions or more."""
        same = timing.agent == self.name and timing.key == self.key.to_dict() and timing.hardware == hardware
        return same and timing.decisions >= self.decisions


SeedsOf = Callable[[registry.Row, Task], Sequence[int | None]]
"""Which training seeds of a row are to be played. MissingWeightsError if they are not there."""


def wanted(
    tasks: Sequence[Task], agents: Sequence[str], seeds: range, device: str, seeds_of: SeedsOf, *, skip: bool
) -> tuple[list[Wanted], list[str]]:
    """The cells of all agents on all tasks, and a sentence for each row that is left out on a task.

    ``skip`` leaves out rows that cannot play a task or have no weights; otherwise they raise ValueError.
    """
    found, skipped = [], []
    for task in tasks:
        for agent in agents:
            row = registry.row(agent)
            try:
                refusal = row.refusal(task)
                if refusal is not None:
                    raise ValueError(f"{agent} cannot play {task.env_id}: {refusal}")
                training_seeds = seeds_of(row, task)
            except ValueError as error:
                if not skip:
                    raise
                skipped.append(f"{agent} is left out on {task.env_id}: {error}")
                continue
            found += [_wanted(agent, row, task, seeds, device, seed) for seed in training_seeds]
    _distinct(found)
    return found, skipped


def _wanted(agent: str, row: registry.Row, task: Task, seeds: range, device: str, seed: int | None) -> Wanted:
    protocol = {
        "env": task.env_id,
        "episode_steps": task.max_episode_steps,
        "first_seed": seeds.start,
        "batch": BATCH,
        "device": device,
    }
    key = row.key(task, seed, protocol)
    return Wanted(registry.shown(agent), task, Player(agent, task.env_id, seed, device, key), tuple(seeds), key)


def timings(cells: Sequence[Wanted], decisions: int) -> list[WantedTiming]:
    """One timing for each group, of its first training seed."""
    first = {cell.group: cell for cell in reversed(cells)}
    return [_timing(first[group], decisions) for group in dict.fromkeys(cell.group for cell in cells)]


def _timing(cell: Wanted, decisions: int) -> WantedTiming:
    row, seed = registry.row(cell.player.agent), cell.player.training_seed
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
