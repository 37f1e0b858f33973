"""Play, time and record several agents in worker processes, with a progress bar for each.

Batches of episodes are spread over processes with one thread each, which for small networks is faster than one process
with several threads. Decisions are timed afterwards, one agent at a time, with nothing else running.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dfplan.benchmarks import workers
from dfplan.benchmarks.protocol import BATCH, DecisionTime, Episodes, batches, join
from dfplan.envs.tasks import Task


@dataclass(frozen=True)
class Played:
    """All that was measured of one agent."""

    agent: str
    description: dict[str, Any]
    """As `dfplan.benchmarks.registry.description` gives it."""
    episodes: Episodes
    decision: DecisionTime


@dataclass(frozen=True)
class Measured:
    """All that a run measured."""

    agents: list[Played]
    denoising: workers.Denoising | None
    """Of the first agent that plans."""
    peak_mib: float
    """Sum of the workers' peak memory."""


class Pool:
    """Worker processes that remember their agents, and what memory they needed."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._steps = context.SimpleQueue()
        self._pool = ProcessPoolExecutor(
            processes, mp_context=context, initializer=workers.start, initargs=(self._steps.put,)
        )
        self._peaks: dict[int, float] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def peak_mib(self) -> float:
        return sum(self._peaks.values())

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[workers.Answer]:
        return self._pool.submit(workers.call, function, *arguments)

    def value(self, future: Future[workers.Answer]) -> Any:
        answer = future.result()
        self._peaks[answer.process] = max(answer.peak_mib, self._peaks.get(answer.process, 0.0))
        return answer.value

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One call, waited for."""
        return self.value(self.submit(function, *arguments))

    def steps(self) -> list[tuple[str, int]]:
        """The environment steps made since the last look, by agent."""
        seen = []
        while not self._steps.empty():
            seen.append(self._steps.get())
        return seen


def measure(
    pool: Pool,
    task: Task,
    descriptions: Mapping[str, dict[str, Any]],
    seeds: Sequence[int],
    device: str,
    decisions: int,
    threads: int,
) -> Measured:
    """Play the seeds with every agent, then time single decisions; ``descriptions`` are the agents', by name."""
    env_id, names = task.env_id, list(descriptions)
    episodes = _play(pool, task, names, seeds, device)
    times = {
        name: pool.run(workers.time_agent, name, env_id, device, decisions, seeds[0], threads) for name in names
    }
    return Measured(
        agents=[Played(name, descriptions[name], episodes[name], times[name]) for name in names],
        denoising=_denoising(pool, env_id, device, episodes),
        peak_mib=pool.peak_mib,
    )


def _play(pool: Pool, task: Task, names: Sequence[str], seeds: Sequence[int], device: str) -> dict[str, Episodes]:
    """Every agent's episodes, in the order of the seeds."""
    columns = (
        TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    jobs: dict[Future[workers.Answer], tuple[str, int]] = {}
    parts: dict[str, dict[int, Episodes]] = {name: {} for name in names}
    with Progress(*columns) as progress:
        bars = {name: progress.add_task(name, total=len(seeds) * task.max_episode_steps) for name in names}
        for name in names:
            for index, batch in enumerate(batches(seeds, BATCH)):
                jobs[pool.submit(workers.play_batch, name, task.env_id, device, batch)] = name, index
        waiting = set(jobs)
        while waiting:
            done, waiting = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
            for future in done:
                name, index = jobs[future]
                parts[name][index] = pool.value(future)
            for name, steps in pool.steps():
                progress.advance(bars[name], steps)
    return {name: join([parts[name][index] for index in sorted(parts[name])]) for name in names}


def _denoising(pool: Pool, env_id: str, device: str, episodes: dict[str, Episodes]) -> workers.Denoising | None:
    """The denoising of the longest plan of the first agent that plans."""
    for name, played in episodes.items():
        lengths = [0 if plan is None else len(plan) for plan in played.plans]
        if max(lengths) > 0:
            longest = played.seeds[lengths.index(max(lengths))]
            return pool.run(workers.record_denoising, name, env_id, device, longest)
    return None
