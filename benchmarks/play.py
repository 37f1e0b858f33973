"""Play what is wanted and not there yet, batch by batch, on worker processes; then time decisions, one agent at a time.

Batches are spread over processes with one thread each, which for small networks is faster than one process with several
threads. Each finished batch is on disk before the next is waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dfplan.benchmarks import jobs, provenance, store
from dfplan.benchmarks.protocol import BATCH, Episodes, batches, join
from dfplan.benchmarks.results import Cell, Timing, write
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.wanted import Wanted
from dfplan.envs.registry import task
from dfplan.worker_processes import Workers

Say = Callable[[str], None]
"""Shows one sentence."""
Descriptions = Mapping[Wanted, Mapping[str, Any]]
"""Of each cell's agent, by `dfplan.benchmarks.jobs.describe`."""


@dataclass(frozen=True)
class BatchOf:
    """One batch of a cell: the name of a job."""

    wanted: Wanted
    index: int

    @property
    def seeds(self) -> Sequence[int]:
        """Of its episodes."""
        return batches(self.wanted.seeds)[self.index]

    def __str__(self) -> str:
        return f"batch {self.index} of {self.wanted}"


def describe_all(pool: Workers, cells: Sequence[Wanted]) -> Descriptions:
    """Build every agent once, so that whatever is wrong with one is said before any episode is played."""
    return dict(pool.ended({wanted: (jobs.describe, wanted) for wanted in cells}))


def play_missing(
    pool: Workers,
    cells: Sequence[Wanted],
    descriptions: Descriptions,
    folder: Path,
    origin: Mapping[str, Any],
    say: Say = print,
    fresh: bool = False,
) -> dict[Wanted, Cell]:
    """All cells, after playing those that are not in the tree in `folder` into it, or all if `fresh`.

    It goes on from the batches that are kept there, unless `fresh`. `origin`: command and hardware, for the files. Raises what
    an agent's failure raises.
    """
    there = {} if fresh else _there(cells, folder, say)
    missing = [wanted for wanted in cells if wanted not in there]
    # Another run may have changed what was there when agents were tried.
    described = {**descriptions, **describe_all(pool, [wanted for wanted in missing if wanted not in descriptions])}
    origin = {"commit": provenance.commit(), "versions": provenance.versions(), **origin}
    files = {wanted: store.Unfinished(folder, wanted) for wanted in missing}
    parts = {wanted: {} if fresh else file.batches(say) for wanted, file in files.items()}

    def finish_if_whole(wanted: Wanted) -> None:
        if len(parts[wanted]) == len(batches(wanted.seeds)):
            episodes = [part for _, part in sorted(parts[wanted].items())]
            there[wanted] = _cell(wanted, join(episodes), {**described[wanted], **origin})
            write(folder, there[wanted])
            files[wanted].remove()

    for wanted, file in files.items():
        file.begin(described[wanted]["files"], parts[wanted].values())
        finish_if_whole(wanted)
    every = [BatchOf(wanted, index) for wanted in missing for index in range(len(batches(wanted.seeds)))]
    todo = [batch for batch in every if batch.index not in parts[batch.wanted]]
    with _bars(todo) as advance:
        for batch, episodes in pool.ended({batch: (jobs.play_batch, batch.wanted, batch.seeds) for batch in todo}):
            parts[batch.wanted][batch.index] = episodes
            files[batch.wanted].add(episodes)
            advance(batch)
            finish_if_whole(batch.wanted)
    return {wanted: there[wanted] for wanted in cells}


def _there(cells: Sequence[Wanted], folder: Path, say: Say) -> dict[Wanted, Cell]:
    """Those that are used again."""
    found = {wanted: store.look(folder, wanted) for wanted in cells}
    for wanted, reason in found.items():
        if isinstance(reason, str):
            say(f"{wanted} is played again: {reason}")
    there = {wanted: cell for wanted, cell in found.items() if isinstance(cell, Cell)}
    if there:
        say(f"{len(there)} of {len(cells)} results are there and used again; --fresh plays them anew")
    return there


def _cell(wanted: Wanted, episodes: Episodes, facts: Mapping[str, Any]) -> Cell:
    every, where = asdict(episodes).items(), task(wanted.env_id)
    counted: dict[str, Any] = {name: list(value) if isinstance(value, tuple) else value for name, value in every}
    counted |= {"reward_curve": [round(reward, 4) for reward in episodes.reward_curve], "seconds": round(episodes.seconds, 1)}
    reference = suite.of(where).reference(where)
    protocol: dict[str, Any] = {"episode_steps": where.max_episode_steps, "reference": reference, "batch": BATCH}
    return Cell(**_whose(wanted), **protocol, created=store.now(), **counted, **facts)


def time_missing(
    pool: Workers, timings: Sequence[Wanted], folder: Path, say: Say = print, fresh: bool = False
) -> dict[Wanted, Timing]:
    """All timings, after measuring those that are not there, or all if `fresh`, one after another, nothing else running.

    An agent that fails, or kills its process, is said and not timed: what was played is worth its table without that.
    """
    hardware, there = provenance.hardware(), dict[Wanted, Timing]()
    for wanted in timings:
        found = store.look_for_timing(folder, wanted, hardware)
        if isinstance(found, str):
            say(f"{wanted.name} on {wanted.env_id} is timed again: {found}")
        if isinstance(found, Timing) and not fresh:
            there[wanted] = found
            continue
        try:
            measured = pool.call(f"timing {wanted.name}", jobs.time_agent, wanted)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            say(f"{wanted.name} on {wanted.env_id} is not timed: {error}")
            continue
        about: dict[str, Any] = {"hardware": hardware, "commit": provenance.commit(), "created": store.now()}
        there[wanted] = Timing(**_whose(wanted), **about, **measured)
        write(folder, there[wanted])
    return there


def _whose(wanted: Wanted) -> dict[str, Any]:
    """What a result has of what was wanted."""
    same = {name: getattr(wanted, name) for name in ("env_id", "training_seed", "device")}
    return same | {"agent": wanted.name, "key": dict(wanted.key)}


@contextmanager
def _bars(todo: Sequence[BatchOf]) -> Iterator[Callable[[BatchOf], None]]:
    """A bar for each agent in each environment that is being played; what is given moves it by a batch's episodes."""
    totals = Counter[tuple[str, str]]()
    for batch in todo:
        totals[batch.wanted.group] += len(batch.seeds)
    several = len({env_id for env_id, _ in totals}) > 1
    names_and_bars = TextColumn("{task.description:<30}"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes")
    with Progress(*names_and_bars, TimeElapsedColumn(), TimeRemainingColumn()) as bars:
        names = {(env_id, agent): f"{agent}, {env_id}" if several else agent for env_id, agent in totals}
        ids = {group: bars.add_task(name, total=totals[group]) for group, name in names.items()}
        yield lambda batch: bars.advance(ids[batch.wanted.group], len(batch.seeds))
