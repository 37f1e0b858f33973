"""Play what is wanted and not there yet, batch by batch, on worker processes; then time decisions, one agent at a time.

Batches are spread over processes with one thread each, which for small networks is faster than one process with several
threads. Each finished batch is on disk before the next is waited for. A worker that dies is replaced. The lower half of
this file is what workers call: functions of names and plain data, so that a process on any machine can be given its work.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from joblib import delayed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dfplan.benchmarks import cluster, own, protocol, provenance, reading, recording, rows, speed, store
from dfplan.benchmarks.results import Cell, Timing
from dfplan.benchmarks.store import Batch, Wanted
from dfplan.envs.registry import task
from dfplan.whole_files import write_whole
from dfplan.worker_processes import as_they_end, worker_processes

DEATHS = 3
"""So many workers may die of one job before it is given up."""
Say = Callable[[str], None]
"""Shows one sentence."""
Descriptions = Mapping[Wanted, Mapping[str, Any]]
"""Of each cell's agent, by `describe`."""


class WorkersDiedError(RuntimeError):
    """A job killed every worker that it was given to."""


@dataclasses.dataclass(frozen=True)
class BatchOf:
    """One batch of a cell: the name of a job."""

    wanted: Wanted
    index: int

    def __str__(self) -> str:
        return f"batch {self.index} of {self.wanted}"


@dataclasses.dataclass(frozen=True)
class Workers:
    """So many processes that call functions, by joblib, within `workers`."""

    count: int
    death: type[Exception]
    """What joblib raises when a worker has died."""
    machines: int | None = None
    """Of a cluster; None for processes of this machine."""

    def ended(self, jobs: Mapping[Any, Sequence[Any]]) -> Iterator[tuple[Any, Any]]:
        """Each job's name and value, as they end; a job is a function and its arguments, all of which can be pickled.

        A worker's death ends all that is being called, and joblib does not say whose it was: what was under way is
        called again, one job at a time. Raises what a job raises, and WorkersDiedError for one that kills every worker.
        """
        left, deaths = dict(jobs), Counter[Hashable]()
        while left:
            suspects = [name for name in left if deaths[name]]
            begun: list[Any] = []
            try:
                for name, value in self._call(left, suspects[:1] or list(left), begun):
                    del left[name]
                    begun.remove(name)
                    yield name, value
            except self.death as error:
                deaths.update(begun)
                for name in begun:
                    if deaths[name] == DEATHS:
                        sentence = f"{DEATHS} worker processes died of {name} (not enough memory?), so it is given up"
                        raise WorkersDiedError(sentence) from error

    def _call(self, jobs: Mapping[Any, Sequence[Any]], names: Sequence[Any], begun: list[Any]) -> Iterator[Any]:
        def handed() -> Iterator[Any]:  # joblib asks for the next when a worker is free
            for name in names:
                begun.append(name)
                yield delayed(_answer)(str(Path.cwd()), name, *jobs[name])

        # With a single worker joblib would call the functions in this process, whose death ends the run: two, one of
        # which has nothing to do.
        return as_they_end(handed(), max(2, self.count), ahead=self.count)

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """One call, waited for."""
        ((_, value),) = self.ended({name: (function, *arguments)})
        return value

    def hardware(self) -> dict[str, Any]:
        """Of this machine; of a cluster, that of one of its machines, with their number and their cores together."""
        if self.machines is None:
            return provenance.hardware()
        one = self.call("the question for the hardware", provenance.hardware)
        return one | {"cores": self.count, "machines": self.machines}


@contextmanager
def workers(count: int, address: str | None = None, threads: int = 1) -> Iterator[Workers]:
    """Up to `count` processes on this machine of so many threads, or those of a Ray cluster (`dfplan.benchmarks.cluster`).

    They are started when there is work for them, and end with this context, whatever they do.
    """
    if address is not None:
        with cluster.joined(address, count) as (machines, found, death):
            yield Workers(found, death, machines)
        return
    with worker_processes(threads):
        yield Workers(count, BrokenProcessPool)


def _answer(folder: str, name: Any, function: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """Call in the driver's working folder, where a machine has one of that name."""
    if Path(folder).is_dir():
        os.chdir(folder)
    return name, function(*arguments)


def describe_all(pool: Workers, cells: Sequence[Wanted]) -> Descriptions:
    """Build every agent once, so that whatever is wrong with one is said before any episode is played."""
    return dict(pool.ended({wanted: (describe, wanted) for wanted in cells}))


def play_all(
    pool: Workers,
    cells: Sequence[Wanted],
    descriptions: Descriptions,
    folder: Path,
    origin: Mapping[str, Any],
    say: Say = print,
) -> dict[Wanted, Cell]:
    """Play the cells into the tree in `folder`, going on from the batches that are kept there, and return them.

    origin: command, commit, versions and hardware, for the files. Raises what an agent's failure raises.
    """
    made: dict[Wanted, Cell] = {}
    parts = {wanted: store.kept(folder, wanted, say) for wanted in cells}
    todo = {
        BatchOf(wanted, index): (play_batch, wanted, seeds, index == 0)
        for wanted in cells
        for index, seeds in enumerate(protocol.batches(wanted.seeds))
        if index not in parts[wanted]
    }

    def finish_if_whole(wanted: Wanted) -> None:
        if len(parts[wanted]) == len(protocol.batches(wanted.seeds)):
            episodes = [batch.episodes for _, batch in sorted(parts[wanted].items())]
            made[wanted] = store.finish(folder, wanted, episodes, descriptions[wanted], origin)

    for wanted in cells:
        finish_if_whole(wanted)
    with _bars(list(todo)) as advance:
        for name, (episodes, paths) in pool.ended(todo):
            wanted, index = name.wanted, name.index
            parts[wanted][index] = Batch(episodes, store.key_of(wanted), descriptions[wanted]["files"])
            store.keep(folder, wanted, index, parts[wanted][index], paths)
            advance(name)
            finish_if_whole(wanted)
    return made


def play_first(pool: Workers, cells: Sequence[Wanted], folder: Path) -> None:
    """Play the first batch of whole cells again, for the paths and plans of the picture."""
    todo = {BatchOf(wanted, 0): (play_batch, wanted, protocol.batches(wanted.seeds)[0], True) for wanted in cells}
    for name, (_, paths) in pool.ended(todo):
        write_whole(store.paths_path(folder, name.wanted), paths)


def time_all(
    pool: Workers, timings: Sequence[Wanted], folder: Path, hardware: dict[str, Any], commit: str | None, say: Say = print
) -> dict[Wanted, Timing]:
    """Measure the timings one after another, nothing else running, write them and return them.

    An agent that fails, or kills its process, is said and not timed: what was played is worth its table without that.
    """
    made = {}
    for wanted in timings:
        try:
            measured, files = pool.call(f"timing {wanted.name}", time_agent, wanted)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            say(f"{wanted.name} on {wanted.env_id} is not timed: {error}")
            continue
        made[wanted] = Timing(
            env_id=wanted.env_id,
            agent=wanted.name,
            training_seed=wanted.training_seed,
            **dataclasses.asdict(measured),
            device=wanted.device,
            key=store.key_of(wanted),
            files=files,
            hardware=hardware,
            commit=commit,
            created=store.now(),
        )
        store.write_timing(folder, made[wanted])
    return made


@contextmanager
def _bars(jobs: Sequence[BatchOf]) -> Iterator[Callable[[BatchOf], None]]:
    """A bar for each agent on each environment that is being played; what is given moves it by a batch's episodes."""
    totals = Counter[tuple[str, str]]()
    for job in jobs:
        totals[job.wanted.group] += len(protocol.batches(job.wanted.seeds)[job.index])
    several = len({env_id for env_id, _ in totals}) > 1
    names_and_bars = TextColumn("{task.description:<30}"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes")
    with Progress(*names_and_bars, TimeElapsedColumn(), TimeRemainingColumn()) as bars:
        names = {(env_id, agent): f"{agent}, {env_id}" if several else agent for env_id, agent in totals}
        ids = {group: bars.add_task(name, total=totals[group]) for group, name in names.items()}
        yield lambda job: bars.advance(ids[job.wanted.group], len(protocol.batches(job.wanted.seeds)[job.index]))


# What workers call.


@lru_cache(maxsize=4)
def build(wanted: Wanted) -> Any:
    """The agent, which stays built in its process. ValueError, KeyError or OSError where it cannot be built."""
    row, where = rows.row(wanted.agent), task(wanted.env_id)
    if wanted.own:
        reading.listen()
    if wanted.key is not None:
        ours = store.key(row, where, wanted.training_seed, {})
        for kind in ("code", "weights"):
            if getattr(ours, kind) != getattr(wanted.key, kind):
                raise ValueError(
                    f"a worker process found other {kind} of {wanted.agent!r} than this run began with: changed while it was "
                    "going on, or different on another machine; start it again"
                )
    if wanted.device != "cpu":
        rows.require_device(wanted.device)
    if row.own and row.path is None:
        agent = own.make(row.agent, where)
    else:
        agent = row.build(where, wanted.device, wanted.training_seed)
    if wanted.own:
        own.require_fit(agent, wanted.env_id, f"the agent {wanted.agent!r}")
    return agent


def describe(wanted: Wanted) -> dict[str, Any]:
    """What a cell keeps of its agent: how it executes, its size, its configuration, the card of its weights, its files.

    A user's own agent is tried before. ValueError, KeyError or OSError, with one sentence, for an agent that cannot be
    made, does not act as it should, or has what a result file cannot hold.
    """
    agent, row = _tried(wanted), rows.row(wanted.agent)
    settings = getattr(agent, "config", None)
    found = {
        "execution": getattr(agent, "execution", row.execution),
        "parameters": getattr(agent, "parameters", None),
        "config": dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else {},  # type: ignore[arg-type]
        "card": getattr(agent, "card", None) or None,
    }
    for name, kinds in (("execution", str), ("parameters", int | None), ("card", dict | None)):
        if not isinstance(found[name], kinds):
            raise ValueError(f"{name!r} of the agent {row.agent!r} is a {type(found[name]).__name__}; expected {kinds}")
    try:
        plain = json.loads(json.dumps(found, allow_nan=False, default=str))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"'config' or 'card' of the agent {row.agent!r} is no plain data: {error}") from error
    return plain | {"about": row.about, "files": _files(wanted)}


def play_batch(wanted: Wanted, seeds: Sequence[int], record: bool) -> tuple[protocol.Episodes, bytes | None]:
    """Play one batch with one thread; also its paths, as a file, if they are to be recorded.

    ValueError, with one sentence, if the agent fails.
    """
    agent, recorder = build(wanted), recording.Recorder() if record else None
    with _blamed(wanted):
        episodes = protocol.play(agent, wanted.env_id, seeds, recorder)
    return episodes, None if recorder is None else recorder.paths().to_npz()


def time_agent(wanted: Wanted) -> tuple[speed.DecisionTime, dict[str, str]]:
    """Time single decisions, with the threads that this process has; also the files that a user's own agent read.

    ValueError, with one sentence, if the agent fails.
    """
    agent = _tried(wanted)
    with _blamed(wanted):
        return speed.time_decisions(agent, wanted.env_id, wanted.decisions, speed.SEED, speed.THREADS), _files(wanted)


def record_plan(wanted: Wanted, seed: int) -> recording.Denoising | None:
    """How one plan came about, from a reset with this seed; None for an agent that does not plan. ValueError if it fails."""
    agent = build(wanted)
    with _blamed(wanted, "did not record a plan"):
        return recording.record_denoising(agent, wanted.env_id, seed)


def _tried(wanted: Wanted) -> Any:
    agent = build(wanted)
    if wanted.own:
        own.require_decisions(agent, wanted.agent, wanted.env_id)
    return agent


def _files(wanted: Wanted) -> dict[str, str]:
    return reading.files() if wanted.own else {}


@contextmanager
def _blamed(wanted: Wanted, failed: str | None = None) -> Iterator[None]:
    """Errors of the agent as a ValueError that names it and the line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        what = failed or f"failed on {wanted.env_id}"
        raise ValueError(f"the agent {wanted.agent!r} {what}: {own.blame(error)}") from error
