"""Play what is wanted and not there yet, batch by batch, on an executor; then time decisions, one agent at a time.

Batches are spread over processes with one thread each, which for small networks is faster than one process with several
threads. Each finished batch is on disk before the next is waited for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dfplan.benchmarks import store, workers
from dfplan.benchmarks.cells import Cell, Timing, write_timing
from dfplan.benchmarks.processes import Done, Executor
from dfplan.benchmarks.progress import Bars
from dfplan.benchmarks.protocol import batches
from dfplan.benchmarks.wanted import Wanted, WantedTiming

Descriptions = Mapping[Wanted, Mapping[str, Any]]
"""Of each cell's agent, by `dfplan.benchmarks.workers.describe`."""
Say = Callable[[str], None]
"""Shows one sentence."""
_LOOK = 0.1
"""Seconds between looks at what the workers have done."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of a cell: the name of a job."""

    wanted: Wanted
    index: int

    def __str__(self) -> str:
        return f"batch {self.index} of {self.wanted}"

    @property
    def seeds(self) -> Sequence[int]:
        return batches(self.wanted.seeds)[self.index]

    @property
    def steps(self) -> int:
        return len(self.seeds) * self.wanted.task.max_episode_steps


def ended(executor: Executor, count: int, told: Callable[[Hashable, int], None] | None = None) -> Iterator[Done]:
    """The next ``count`` jobs that end, as they end; ``told`` hears of environment steps."""
    while count:
        for done in executor.finished(_LOOK):
            count -= 1
            yield done
        for job, steps in executor.steps():
            if told is not None:
                told(job, steps)


def call(executor: Executor, job: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """One call, waited for."""
    executor.submit(job, function, *arguments)
    (done,) = ended(executor, 1)
    return done.result()


def describe(executor: Executor, cells: Sequence[Wanted]) -> Descriptions:
    """Build every agent once, so that whatever is wrong with one is said before any episode is played."""
    for wanted in cells:
        executor.submit(wanted, workers.describe, wanted.player)
    return {done.job: done.result() for done in ended(executor, len(cells))}  # type: ignore[misc]


def play(
    executor: Executor,
    cells: Sequence[Wanted],
    descriptions: Descriptions,
    folder: Path,
    origin: Mapping[str, Any],
    say: Say = print,
) -> dict[Wanted, Cell]:
    """Play the cells into the tree in ``folder``, going on from the batches that are kept there, and return them.

    origin: command, commit, versions and hardware, for the files. Raises what an agent's failure raises.
    """
    left = {wanted: _left(folder, wanted, say) for wanted in cells}
    made: dict[Wanted, Cell] = {}
    totals: dict[tuple[str, str], int] = {}
    for wanted, todo in left.items():
        totals[wanted.group] = totals.get(wanted.group, 0) + sum(batch.steps for batch in todo)
        for batch in todo:
            executor.submit(batch, workers.play_batch, wanted.player, batch.seeds)
        if not todo:
            made[wanted] = store.finish(folder, wanted, descriptions[wanted], origin)
    with Bars(totals) as bars:

        def told(job: Any, steps: int) -> None:
            bars.advance(job, job.wanted.group, steps)

        for done in ended(executor, sum(map(len, left.values())), told):
            played: Any = done.job
            wanted = played.wanted
            store.keep(folder, wanted, played.index, done.result(), descriptions[wanted]["files"])
            bars.finish(played, wanted.group, played.steps)
            left[wanted].remove(played)
            if not left[wanted]:
                made[wanted] = store.finish(folder, wanted, descriptions[wanted], origin)
    return made


def play_first(executor: Executor, cells: Sequence[Wanted], folder: Path) -> None:
    """Play the first batch of whole cells again, for the paths and plans of the picture."""
    for wanted in cells:
        executor.submit(wanted, workers.play_batch, wanted.player, batches(wanted.seeds)[0])
    for done in ended(executor, len(cells)):
        store.write_first_episodes(folder, done.job, done.result())  # type: ignore[arg-type]


def _left(folder: Path, wanted: Wanted, say: Say) -> list[Batch]:
    """The batches that are still to be played."""
    there = store.kept(folder, wanted, say)
    return [Batch(wanted, index) for index in range(len(batches(wanted.seeds))) if index not in there]


def time_decisions(
    executor: Executor,
    timings: Sequence[WantedTiming],
    folder: Path,
    hardware: dict[str, Any],
    commit: str | None,
    say: Say = print,
) -> dict[WantedTiming, Timing]:
    """Measure the timings one after another, nothing else running, write them and return them.

    An agent that fails, or kills its process, is said and not timed: what was played is worth its table without that.
    """
    made = {}
    for wanted in timings:
        try:
            measured, files = call(executor, f"timing {wanted.name}", workers.time_agent, wanted.player, wanted.decisions)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            say(f"{wanted.name} on {wanted.task.env_id} is not timed: {error}")
            continue
        timing = Timing(
            env_id=wanted.task.env_id,
            agent=wanted.name,
            training_seed=wanted.player.training_seed,
            **dataclasses.asdict(measured),
            device=wanted.player.device,
            key=wanted.key.to_dict(),
            files=files,
            hardware=hardware,
            commit=commit,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_timing(folder, timing)
        made[wanted] = timing
    return made
