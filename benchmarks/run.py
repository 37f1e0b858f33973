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
import subprocess
import sys
import time
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group

from dfplan import command
from dfplan.benchmarks import play, results, rows
from dfplan.benchmarks.protocol import EPISODES, evaluation_seeds
from dfplan.benchmarks.results import Cell, Timing
from dfplan.benchmarks.speed import DECISIONS, THREADS
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.wanted import Wanted, timings, wanted
from dfplan.envs.registry import Task, find, short_name
from dfplan.worker_processes import LOCAL, Workers, WorkersDiedError, workers

_QUICK_EPISODES, _QUICK_DECISIONS = 10, 100


@dataclass(frozen=True)
class Arguments:
    """What to play."""

    env: tuple[str, ...] = ("maze2d-large",)
    """Environments, with or without their version, or a suite of them; 'all': the mazes, with a fixed and with random goals."""
    agents: tuple[str, ...] | None = None
    """Rows of the table: registered names, 'all', package.module:Class for your own agent, or sb3:PATH for a model of
    stable-baselines3. sb3-trust-pickle:PATH runs the code in that file's pickles, which a policy class of your own needs.
    Without it a few rows that the suite names."""
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
    open: bool = False
    """Show the executed paths of the first environment that has a picture, in the browser or what opens pictures here."""
    output: Path = Path("results")
    """Folder for the files; those of other episodes go to a folder in it, block1 for --seed 1."""
    threads: int = min(2, os.cpu_count() or 1)
    """Processes that play episodes. (Decisions are timed with two threads, or as many as there are cores.)"""
    cluster: Annotated[str | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    """Play on a Ray cluster: an address, or 'local' for one on this machine, which is also meant without an address."""


def check(arguments: Arguments) -> tuple[list[Task], range]:
    """The tasks and the episodes' seeds. ValueError or KeyError, with one sentence, for what cannot be used."""
    chosen = arguments.training_seeds
    families = {env: suite.called(env) for env in arguments.env}
    tasks = [find(name) for env, family in families.items() for name in (family.tasks if family else (env,))]
    if not tasks or arguments.agents == ():
        raise ValueError("expected one or more environments and agents, not none")
    if chosen is not None and not (chosen and set(chosen) <= set(rows.TRAINING_SEEDS)):
        known = ", ".join(map(str, rows.TRAINING_SEEDS))
        raise ValueError(f"training seeds are one or more of {known}, not {' '.join(map(str, chosen)) or 'none'}")
    if arguments.threads < 1:
        raise ValueError(f"threads must be at least 1, not {arguments.threads}")
    usual = _QUICK_EPISODES if arguments.quick else EPISODES
    unique = {task.env_id: task for task in tasks}
    return list(unique.values()), evaluation_seeds(
        usual if arguments.episodes is None else arguments.episodes, arguments.seed
    )


def run(arguments: Arguments, console: Any) -> None:
    """Do what was asked for; ValueError, KeyError or OSError, with one sentence, where that cannot be done."""
    began = time.perf_counter()

    def say(sentence: str) -> None:
        console.print(sentence, style="dim", soft_wrap=True, markup=False, highlight=False)

    tasks, seeds = check(arguments)
    folder = arguments.output / f"block{arguments.seed}" if arguments.seed else arguments.output
    usual = dict.fromkeys(name for where in tasks for name in suite.of(where).rows)
    agents = tuple(rows.ROWS) if arguments.agents == ("all",) else arguments.agents or tuple(usual)
    if arguments.train:
        train_missing(tasks, agents, arguments.training_seeds)
    first_only, fresh = arguments.quick and arguments.training_seeds is None, arguments.fresh
    cells, skipped = wanted(tasks, agents, seeds, arguments.training_seeds, arguments.device, first_only)
    for sentence in skipped:
        say(sentence)
    with results.writing(folder, {cell.env_id for cell in cells}):
        there = play.there(cells, folder, say, fresh)
        missing = [cell for cell in cells if cell not in there]
        with workers(arguments.threads, arguments.cluster if missing else None) as pool:
            typed = command.typed("benchmarks/run.py", arguments, leave_out=["output", "open"])
            played = there | play.play(pool, missing, folder, typed, say, fresh)
        # Decisions are timed and plans recorded on this machine, wherever the episodes were played.
        with workers(1, threads=THREADS) as machine:
            times = timings(cells, _QUICK_DECISIONS if arguments.quick else DECISIONS)
            measured = play.time_missing(machine, times, folder, say, fresh or arguments.retime)
            shown = []
            for where in tasks:
                mine = {cell: played[cell] for cell in cells if cell.env_id == where.env_id}
                shown.append(show(machine, where, mine, list(measured.values()), folder, say))
    for table, files in filter(None, shown):
        console.print(table)
        say(f"wrote {', '.join(files)}")
    if arguments.open:
        drawn = [path for where in tasks if (path := folder / short_name(where.env_id) / "paths.png").is_file()]
        if not (drawn and webbrowser.open(drawn[0].resolve().as_uri())):
            say("nothing here shows pictures" if drawn else "there is no picture to be shown")
    console.print(f"{time.perf_counter() - began:.0f} s; results are in {folder}", soft_wrap=True)


def train_missing(tasks: Sequence[Task], agents: Sequence[str], seeds: Sequence[int] | None) -> None:
    """Train the weights that rows lack, of these training seeds. ValueError for a task without recipes, or a failure."""
    for where, row in product(tasks, map(rows.row, agents)):
        for words in row.lacking(where, seeds) if row.refusal(where) is None else []:
            if subprocess.run([sys.executable, "-m", "dfplan.benchmarks.train", *words], check=False).returncode:
                raise ValueError(f"training with {' '.join(words)} failed")


def show(
    machine: Workers, where: Task, cells: Mapping[Wanted, Cell], times: Sequence[Timing], folder: Path, say: play.Say
) -> tuple[Group, list[str]] | None:
    """Write one environment's table, and its pictures where its suite has any: of each agent the paths of its first cell,
    and one plan being denoised. The table for the screen, and the files' names; None for an environment without cells."""
    from dfplan.benchmarks.report import summaries, tables  # late: pandas and matplotlib take seconds to import

    if not cells:
        return None
    place = folder / short_name(where.env_id)
    summary = summaries.summarize(list(cells.values()), [time for time in times if time.env_id == where.env_id])
    tables.write(place, summary)
    firsts = {wanted.name: wanted for wanted in reversed(list(cells))}

    def record(agent: str) -> Any:
        try:
            return machine.call(f"the pictures of {agent}", play.record, firsts[agent])
        except play.FAILURES as error:
            say(f"{agent} is not drawn: {error}")
            return None

    pictures = suite.of(where).pictures
    if pictures is not None:
        pictures(place, where, {agent: cells[wanted] for agent, wanted in reversed(firsts.items())}, record)
    names = [name for name in ("table.md", "table.csv", "paths.png", "denoising.gif") if (place / name).exists()]
    return tables.to_rich(summary), names


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
