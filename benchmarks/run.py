"""Evaluate agents and write the table, the results and the pictures.

    python benchmarks/run.py --env maze2d-large
    python benchmarks/run.py --env all --agents all

Plays the same episodes with every agent and shows the table of each environment. Into the output folder go one result
file for each agent, environment and training seed, and for each environment table.md, table.csv, paths.png (executed
paths over plans) and denoising.gif (a plan being denoised). Results that are there already are used again unless code,
configuration or weights have changed; after Ctrl-C or a kill the same command goes on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from dfplan import command
from dfplan.benchmarks import play, rows, store
from dfplan.benchmarks.protocol import EPISODES, evaluation_seeds
from dfplan.benchmarks.show import show
from dfplan.benchmarks.speed import DECISIONS, THREADS
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.wanted import timings, train_missing, wanted
from dfplan.benchmarks.workers import LOCAL, workers
from dfplan.envs.registry import Task, find
from dfplan.worker_processes import WorkersDiedError

_QUICK_EPISODES, _QUICK_DECISIONS = 10, 100


@dataclass(frozen=True)
class Arguments:
    """What to play."""

    env: tuple[str, ...] = ("maze2d-large",)
    """Environments, with or without their version, or a suite of them; 'all': the mazes, with a fixed and with random goals."""
    agents: tuple[str, ...] = rows.DEFAULT_ROWS
    """Rows of the table: registered names, 'all', package.module:Class for your own agent, or sb3:PATH for a model of
    stable-baselines3. sb3-trust-pickle:PATH runs the code in that file's pickles, which a policy class of your own needs."""
    training_seeds: tuple[int, ...] | None = None
    """Training seeds of the agents that are trained; without it all that have weights, with --quick the first one."""
    episodes: int | None = None
    """Episodes of each agent and training seed; without it 100, or 10 with --quick."""
    seed: int = 0
    """Which block of evaluation episodes to play."""
    device: str = "cpu"
    """Where agents compute: cpu, cuda, or one of several as in cuda:1."""
    train: bool = False
    """Train missing weights first (collecting the data if it is missing), which takes long."""
    quick: bool = False
    """A look within 90 seconds: 10 episodes, one training seed, fewer timed decisions."""
    fresh: bool = False
    """Play everything again, whatever results there are; each is replaced when its new one is whole."""
    retime: bool = False
    """Time decisions again, whatever timings there are."""
    output: Path = Path("results")
    """Folder for the files; those of other episodes go to a folder in it, block1 for --seed 1."""
    threads: int = min(2, os.cpu_count() or 1)
    """Processes that play episodes. (Decisions are timed with two threads, or as many as there are cores.)"""
    cluster: Annotated[str | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    """Play on a Ray cluster: an address, or 'local' for one on this machine, which is also meant without an address."""


def check(arguments: Arguments) -> tuple[list[Task], range, Path]:
    """The tasks, the episodes' seeds and the output folder. ValueError or KeyError, with one sentence, for bad ones."""
    suites = [(env, suite.called(env)) for env in arguments.env]
    names = [name for env, family in suites for name in (family.tasks if family else (env,))]
    tasks = [find(name) for name in dict.fromkeys(names)]
    chosen = arguments.training_seeds
    for several, of in (([task.env_id for task in tasks], "environments"), (arguments.agents, "agents")):
        if not several or len(set(several)) < len(several):
            raise ValueError(f"expected one or more different {of}, not {' '.join(several) or 'none'}")
    if "all" in arguments.agents and len(arguments.agents) > 1:
        raise ValueError("'all' stands for every registered agent: expected no other beside it")
    if chosen is not None and (
        not chosen or not set(chosen) <= set(rows.TRAINING_SEEDS) or len(set(chosen)) < len(chosen)
    ):
        known = ", ".join(map(str, rows.TRAINING_SEEDS))
        raise ValueError(f"training seeds are one or more of {known}, not {' '.join(map(str, chosen)) or 'none'}")
    rows.require_device_name(arguments.device)
    if arguments.threads < 1:
        raise ValueError(f"threads must be at least 1, not {arguments.threads}")
    episodes = (
        arguments.episodes if arguments.episodes is not None else _QUICK_EPISODES if arguments.quick else EPISODES
    )
    folder = arguments.output / f"block{arguments.seed}" if arguments.seed else arguments.output
    store.require_writable(folder)
    return tasks, evaluation_seeds(episodes, arguments.seed), folder


def run(arguments: Arguments, console: Any) -> None:
    """Do what was asked for; ValueError, KeyError or OSError, with one sentence, where that cannot be done."""
    began = time.perf_counter()

    def say(sentence: str) -> None:
        console.print(sentence, style="dim", soft_wrap=True, markup=False, highlight=False)

    tasks, seeds, folder = check(arguments)
    agents = tuple(rows.ROWS) if arguments.agents == ("all",) else arguments.agents
    if arguments.train:
        train_missing(tasks, agents, arguments.training_seeds)
    first_only = arguments.quick and arguments.training_seeds is None
    cells, skipped = wanted(tasks, agents, seeds, arguments.training_seeds, arguments.device, first_only)
    for sentence in skipped:
        say(sentence)
    times = timings(cells, _QUICK_DECISIONS if arguments.quick else DECISIONS)
    missing, fresh = store.missing(folder, cells, times, arguments.fresh), arguments.fresh
    with ExitStack() as written:
        with workers(arguments.threads, arguments.cluster if missing else None) as (pool, hardware):
            # All that can be wrong with an agent is said before anything is written.
            descriptions = play.describe_all(pool, missing)
            written.enter_context(store.writing(folder, {cell.env_id for cell in cells}))
            store.missing(folder, cells, times, fresh)  # again: another run may have written since
            origin = {
                "command": command.typed("benchmarks/run.py", arguments, leave_out=["output"]),
                "hardware": hardware,
            }
            played = play.play_missing(pool, cells, descriptions, folder, origin, say, fresh)
        # Decisions are timed and plans recorded on this machine, wherever the episodes were played.
        with workers(1, threads=THREADS) as (machine, _):
            measured = play.time_missing(machine, times, folder, say, fresh=fresh or arguments.retime)
            shown = [show(machine, task, played, measured, folder, say) for task in tasks]
    for table, files in filter(None, shown):
        console.print(table)
        say(f"wrote {', '.join(files)}")
    console.print(f"{time.perf_counter() - began:.0f} s; results are in {folder}", soft_wrap=True)


@command.with_arguments(
    Arguments,
    __doc__,
    interrupted="what was played is kept, and the same command, without --fresh, goes on from there",
    failures=(WorkersDiedError,),
)
def _main(arguments: Arguments) -> None:
    run(arguments, command.console())


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark with these words of a command line, or those of this process."""
    given = list(sys.argv[1:] if words is None else words)
    for place, following in reversed(list(enumerate([*given[1:], "--"], start=1))):
        if given[place - 1 : place] == ["--cluster"] and following.startswith("-"):
            given.insert(place, LOCAL)
    return _main(given)


if __name__ == "__main__":
    sys.exit(main())
