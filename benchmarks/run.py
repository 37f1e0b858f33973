"""Evaluate agents on mazes and write the table, the results and the pictures.

    python benchmarks/run.py --env maze2d-large
    python benchmarks/run.py --env all --agents all

Plays the same episodes with every agent and shows the table of each environment. Into the output folder go one result
file for each agent, environment and training seed, and for each environment table.md, table.csv, paths.png (executed
paths over plans) and denoising.gif (a plan being denoised). Results that are there already are used again unless code,
configuration or weights have changed; after Ctrl-C or a kill the same command goes on.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import tyro
from rich.console import Console, Group

from dfplan import command
from dfplan.benchmarks import cluster, evaluation, provenance, rows, store, workers
from dfplan.benchmarks.cells import Cell, Timing, env_folder
from dfplan.benchmarks.processes import Executor, Processes, WorkersDiedError
from dfplan.benchmarks.protocol import EPISODES, TRAINING_SEEDS, evaluation_seeds
from dfplan.benchmarks.timing import DECISIONS
from dfplan.benchmarks.wanted import Wanted, WantedTiming, timings, wanted
from dfplan.envs.reference import reference
from dfplan.envs.registry import Task, find
from dfplan.locks import hold

ALL = tuple(f"{family}-{maze}" for family in ("maze2d", "multi2d") for maze in ("umaze", "medium", "large"))
"""What ``--env all`` stands for."""
_QUICK_EPISODES, _QUICK_DECISIONS = 10, 100


@dataclass(frozen=True)
class Arguments:
    env: tuple[str, ...] = ("maze2d-large",)
    """Environments, with or without their version, or 'all': the three mazes, with a fixed and with random goals."""
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
    output: Path | None = None
    """Folder for the files, without it results; those of other episodes go to a folder in it, block1 for --seed 1."""
    threads: int = min(2, os.cpu_count() or 1)
    """Processes that play episodes. (Decisions are timed with two threads, or as many as there are cores.)"""
    cluster: Annotated[str | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    """Play on a Ray cluster: an address, or 'local' for one on this machine, which is also meant without an address."""


def check(arguments: Arguments) -> tuple[list[Task], range, Path]:
    """The tasks, the episodes' seeds and the output folder. ValueError or KeyError, with one sentence, for bad ones."""
    names = [name for given in arguments.env for name in (ALL if given == "all" else (given,))]
    tasks = [find(name) for name in dict.fromkeys(names)]
    for task in tasks:
        reference(task.env_id)
    if not tasks or len({task.env_id for task in tasks}) < len(tasks):
        raise ValueError(f"expected one or more different environments, not {' '.join(arguments.env) or 'none'}")
    if not arguments.agents or len(set(arguments.agents)) < len(arguments.agents):
        raise ValueError(f"expected one or more different agents, not {' '.join(arguments.agents) or 'none'}")
    if "all" in arguments.agents and len(arguments.agents) > 1:
        raise ValueError("'all' stands for every registered agent: expected no other beside it")
    chosen = arguments.training_seeds
    if chosen is not None and (not chosen or not set(chosen) <= set(TRAINING_SEEDS) or len(set(chosen)) < len(chosen)):
        several = ", ".join(map(str, TRAINING_SEEDS))
        raise ValueError(f"training seeds are one or more of {several}, not {' '.join(map(str, chosen)) or 'none'}")
    workers.check_device_name(arguments.device)
    if arguments.threads < 1:
        raise ValueError(f"threads must be at least 1, not {arguments.threads}")
    episodes = _QUICK_EPISODES if arguments.quick else EPISODES
    seeds = evaluation_seeds(episodes if arguments.episodes is None else arguments.episodes, arguments.seed)
    folder = arguments.output or Path("results")
    if arguments.seed:
        folder /= f"block{arguments.seed}"
    _check_output(folder)
    return tasks, seeds, folder


def _check_output(folder: Path) -> None:
    """Say now, not after minutes of playing, that nothing can be written there."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"cannot write into the output folder {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"cannot write into the output folder {folder}: no permission to write in {existing}")


def seeds_of(row: rows.Row, task: Task, arguments: Arguments) -> Sequence[int | None]:
    """Which training seeds of a row to play; missing weights are trained first if that was asked for."""
    try:
        found = row.training_seeds(task, arguments.training_seeds)
    except rows.MissingWeightsError as missing:
        if not arguments.train:
            raise
        if subprocess.run([sys.executable, "-m", "dfplan.benchmarks.train", *missing.command], check=False).returncode:
            raise ValueError(f"training the weights {missing.weights!r} failed") from missing
        if row.weights_file(task, missing.seed) is None:
            raise
        return seeds_of(row, task, arguments)
    return found[:1] if arguments.quick and arguments.training_seeds is None else found


def executor(arguments: Arguments) -> Executor:
    if arguments.cluster is None:
        return Processes(arguments.threads)
    return cluster.Cluster(arguments.cluster, arguments.threads)


def run(arguments: Arguments, console: Console) -> None:
    """Do what was asked for; ValueError, KeyError or OSError, with one sentence, where that cannot be done."""
    began = time.perf_counter()

    def say(sentence: str) -> None:
        console.print(sentence, style="dim", soft_wrap=True, markup=False, highlight=False)

    tasks, seeds, folder = check(arguments)
    agents = tuple(rows.ROWS) if arguments.agents == ("all",) else arguments.agents
    seeds_of_row = partial(seeds_of, arguments=arguments)
    cells, skipped = wanted(tasks, agents, seeds, arguments.device, seeds_of_row, skip=not arguments.train)
    for sentence in skipped:
        say(sentence)
    tasks = [task for task in tasks if any(cell.task == task for cell in cells)]
    times = timings(cells, _QUICK_DECISIONS if arguments.quick else DECISIONS)
    store.check(folder, cells, times, fresh=arguments.fresh)
    missing = missing_of(arguments, folder, cells)
    pool = executor(arguments) if missing else Processes(arguments.threads)
    machine = Processes(1)  # decisions are timed and plans recorded here, wherever the episodes were played
    try:
        # All that can be wrong with an agent is said before anything is written.
        descriptions = evaluation.describe(pool, missing)
        with writing(folder, tasks):
            store.check(folder, cells, times, fresh=arguments.fresh)  # again: another run may have written since
            played = play(arguments, pool, cells, descriptions, folder, say)
            pool.close()
            measured = time_all(arguments, machine, times, folder, say)
            shown = [show(machine, task, played, measured, folder, say) for task in tasks]
    finally:
        pool.close()
        machine.close()
    for table, files in shown:
        console.print(table)
        say(f"wrote {', '.join(files)}")
    console.print(f"{time.perf_counter() - began:.0f} s; results are in {folder}", soft_wrap=True)


def missing_of(arguments: Arguments, folder: Path, cells: Sequence[Wanted]) -> list[Wanted]:
    """The cells that are to be played."""
    return [cell for cell in cells if arguments.fresh or store.whole(folder, cell) is None]


@contextmanager
def writing(folder: Path, tasks: Sequence[Task]) -> Iterator[None]:
    """Keep other runs out of the folders of some environments, after waiting for those that are in one."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    with ExitStack() as locks:
        for name in sorted(env_folder(task.env_id) for task in tasks):  # the same order in all runs: none waits in a circle
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            locks.enter_context(hold(place / ".lock", f"which plays {name} in {folder} since {since}", wait=True))
        for task in tasks:
            store.remove_leftovers(folder, task.env_id)
        yield


def play(
    arguments: Arguments,
    pool: Executor,
    cells: Sequence[Wanted],
    descriptions: evaluation.Descriptions,
    folder: Path,
    say: evaluation.Say,
) -> dict[Wanted, Cell]:
    """All cells, after playing those that are not there, and the first batches of those whose paths are damaged."""
    there: dict[Wanted, Cell] = {}
    for cell in cells:
        found = store.look(folder, cell)
        if arguments.fresh:
            store.begin_afresh(folder, cell)
        elif isinstance(found, Cell):
            there[cell] = found
        elif found is not None:
            say(f"{cell} is played again: {found}")
    if there:
        say(f"{len(there)} of {len(cells)} results are there and used again; --fresh plays them anew")
    missing = [cell for cell in cells if cell not in there]
    if missing:
        # Another run may have changed what was there when agents were tried.
        descriptions = {**descriptions, **evaluation.describe(pool, [cell for cell in missing if cell not in descriptions])}
        hardware = getattr(pool, "hardware", provenance.hardware)()
        there |= evaluation.play(pool, missing, descriptions, folder, origin() | {"hardware": hardware}, say)
    evaluation.play_first(pool, [wanted for wanted, cell in there.items() if _lacks_paths(folder, cell, say)], folder)
    return {cell: there[cell] for cell in cells}


def _lacks_paths(folder: Path, cell: Cell, say: evaluation.Say) -> bool:
    try:
        store.first_episodes(folder, cell)
    except ValueError as error:
        say(f"the first episodes of {cell.agent} on {cell.env_id} are played again: {error}")
        return True
    return False


def origin() -> dict[str, Any]:
    """What result files say of how they were made, without the hardware and the folder that they were written to."""
    return {"command": as_typed(sys.argv[1:]), "commit": provenance.commit(), "versions": provenance.versions()}


def as_typed(words: Sequence[str]) -> str:
    """A command line for result files, to be typed as it stands; the folder that they are written to does not matter."""
    kept, words = [], list(words)
    while words:
        word = words.pop(0)
        if word == "--output":
            del words[:1]
        elif not word.startswith("--output="):
            kept.append(word)
    return shlex.join(["python", "benchmarks/run.py", *kept])


def time_all(
    arguments: Arguments, machine: Executor, times: Sequence[WantedTiming], folder: Path, say: evaluation.Say
) -> list[Timing]:
    """All timings, measuring those that are not there; without those of agents that cannot be timed."""
    hardware = provenance.hardware()
    there: dict[WantedTiming, Timing] = {}
    for one in times:
        found = store.look_for_timing(folder, one, hardware)
        if isinstance(found, Timing) and not arguments.fresh and not arguments.retime:
            there[one] = found
        elif isinstance(found, str):
            say(f"{one.name} on {one.task.env_id} is timed again: {found}")
    missing = [one for one in times if one not in there]
    there |= evaluation.time_decisions(machine, missing, folder, hardware, provenance.commit(), say)
    return [there[one] for one in times if one in there]


def show(
    machine: Executor,
    task: Task,
    played: Mapping[Wanted, Cell],
    times: Sequence[Timing],
    folder: Path,
    say: evaluation.Say,
) -> tuple[Group, list[str]]:
    """Write the table and the pictures of an environment; the table for the screen, and the names of the files."""
    from dfplan.benchmarks.report import pictures, tables
    from dfplan.benchmarks.report.summaries import summarize

    of_task = {wanted: cell for wanted, cell in played.items() if wanted.task == task}
    players = {(cell.agent, cell.training_seed): wanted.player for wanted, cell in of_task.items()}
    cells, measured = list(of_task.values()), [timing for timing in times if timing.env_id == task.env_id]

    def record(cell: Cell, seed: int) -> workers.Denoising | None:
        player = players[cell.agent, cell.training_seed]
        try:
            return evaluation.call(machine, f"a plan of {cell.agent}", workers.record_denoising, player, seed)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            say(f"no plan of {cell.agent} is drawn: {error}")
            return None

    drawn: dict[str, tuple[Cell, Any]] = {}
    for cell in cells:
        episodes = store.first_episodes(folder, cell) if cell.agent not in drawn else None
        if episodes is not None:
            paths = SimpleNamespace(goals=episodes.goals, executed=episodes.paths, planned=episodes.plans)
            drawn[cell.agent] = cell, paths
    summary, place = summarize(cells, measured), folder / env_folder(task.env_id)
    tables.write(place, summary)
    pictures.write(place, task.layout, drawn, record)
    names = [name for name in ("table.md", "table.csv", "paths.png", "denoising.gif") if (place / name).exists()]
    return tables.to_rich(summary), names


@command.with_arguments(
    Arguments,
    __doc__,
    interrupted="what was played is kept, and the same command, without --fresh, goes on from there",
    failures=(WorkersDiedError,),
)
def play_all(arguments: Arguments) -> None:
    """The command, but for the form of --cluster."""
    run(arguments, command.console())


def main() -> int:
    return play_all(with_address(sys.argv[1:]))


def with_address(words: list[str]) -> list[str]:
    """The command line with 'local' after a --cluster that no address follows."""
    found = []
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        found += [word, cluster.LOCAL] if word == "--cluster" and following.startswith("-") else [word]
    return found


if __name__ == "__main__":
    sys.exit(main())
