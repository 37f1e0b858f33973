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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group

from dfplan import command
from dfplan.benchmarks import cluster, play, provenance, recording, rows, store
from dfplan.benchmarks.protocol import BATCH, EPISODES, evaluation_seeds
from dfplan.benchmarks.results import Cell, Timing
from dfplan.benchmarks.speed import DECISIONS, THREADS
from dfplan.benchmarks.store import Wanted
from dfplan.benchmarks.suites import suite
from dfplan.envs.reference import reference
from dfplan.envs.registry import Task, find, short_name

ALL = suite.named(suite.MAIN).tasks
"""What `--env all` stands for."""
Say = play.Say
_QUICK_EPISODES, _QUICK_DECISIONS = 10, 100


@dataclass(frozen=True)
class Arguments:
    """What to play."""

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
    if chosen is not None and (not chosen or not set(chosen) <= set(rows.TRAINING_SEEDS) or len(set(chosen)) < len(chosen)):
        several = ", ".join(map(str, rows.TRAINING_SEEDS))
        raise ValueError(f"training seeds are one or more of {several}, not {' '.join(map(str, chosen)) or 'none'}")
    rows.require_device_name(arguments.device)
    if arguments.threads < 1:
        raise ValueError(f"threads must be at least 1, not {arguments.threads}")
    episodes = _QUICK_EPISODES if arguments.quick else EPISODES
    seeds = evaluation_seeds(episodes if arguments.episodes is None else arguments.episodes, arguments.seed)
    folder = arguments.output or Path("results")
    if arguments.seed:
        folder /= f"block{arguments.seed}"
    # Now, not after minutes of playing, it is said that nothing can be written there.
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"cannot write into the output folder {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"cannot write into the output folder {folder}: no permission to write in {existing}")
    return tasks, seeds, folder


def train_missing(tasks: Sequence[Task], agents: Sequence[str], seeds: Sequence[int] | None) -> None:
    """Train the weights that rows lack, of these training seeds. ValueError for a maze without recipes, or a failure."""
    for task in tasks:
        for row in map(rows.row, agents):
            while row.refusal(task) is None:
                try:
                    row.training_seeds(task, seeds)
                    break
                except rows.MissingWeightsError as missing:
                    words = [sys.executable, "-m", "dfplan.benchmarks.train", *missing.command]
                    if subprocess.run(words, check=False).returncode:
                        raise ValueError(f"training the weights {missing.weights!r} failed") from missing
                    if row.weights_file(task, missing.seed) is None:
                        raise


def wanted(
    tasks: Sequence[Task], agents: Sequence[str], seeds: range, arguments: Arguments
) -> tuple[list[Wanted], list[str]]:
    """The cells of all agents on all tasks, and a sentence for each row that is left out on a task.

    Left out are rows that cannot play a task, and those without weights. Raises KeyError or FileNotFoundError for an agent
    that is not there, ValueError if no cell is left, or if two rows would be kept in the same folder.
    """
    chosen = {agent: rows.row(agent) for agent in agents}
    found: list[Wanted] = []
    skipped = []
    for task in tasks:
        for agent, row in chosen.items():
            try:
                refusal, training_seeds = row.refusal(task), row.training_seeds(task, arguments.training_seeds)
            except ValueError as error:
                refusal, training_seeds = row.refusal(task) or str(error), ()
            if refusal is not None:
                skipped.append(f"{agent} is left out on {task.env_id}: {refusal}")
                continue
            if arguments.quick and arguments.training_seeds is None:
                training_seeds = training_seeds[:1]
            found += [_cell(agent, row, task, seeds, arguments.device, seed) for seed in training_seeds]
    if not found:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise ValueError(f"nothing is left to play: {skipped[0]}{more}")
    owners: dict[str, str] = {}
    for cell in found:
        other, place = owners.setdefault(store.agent_folder(cell.name), cell.name), store.agent_folder(cell.name)
        if other != cell.name:
            raise ValueError(f"the agents {other!r} and {cell.name!r} would share the folder {place!r}")
    return found, skipped


def _cell(agent: str, row: rows.Row, task: Task, seeds: range, device: str, training_seed: int | None) -> Wanted:
    protocol = {
        "env": task.env_id,
        "episode_steps": task.max_episode_steps,
        "first_seed": seeds.start,
        "batch": BATCH,
        "device": device,
    }
    return Wanted(
        rows.shown(agent),
        agent,
        task.env_id,
        training_seed,
        device,
        store.key(row, task, training_seed, protocol),
        own=row.own,
        seeds=tuple(seeds),
        steps=task.max_episode_steps,
    )


def timings(cells: Sequence[Wanted], decisions: int) -> list[Wanted]:
    """One timing for each group of cells, of its first training seed."""
    first: dict[tuple[str, str], Wanted] = {}
    for cell in cells:
        first.setdefault(cell.group, cell)
    return [replace(cell, key=_timing_key(cell), seeds=(), decisions=decisions) for cell in first.values()]


def _timing_key(cell: Wanted) -> provenance.Key:
    protocol = {"env": cell.env_id, "device": cell.device}
    return store.key(rows.row(cell.agent), find(cell.env_id), cell.training_seed, protocol)


def run(arguments: Arguments, console: Any) -> None:
    """Do what was asked for; ValueError, KeyError or OSError, with one sentence, where that cannot be done."""
    began = time.perf_counter()

    def say(sentence: str) -> None:
        console.print(sentence, style="dim", soft_wrap=True, markup=False, highlight=False)

    tasks, seeds, folder = check(arguments)
    agents = tuple(rows.ROWS) if arguments.agents == ("all",) else arguments.agents
    if arguments.train:
        train_missing(tasks, agents, arguments.training_seeds)
    cells, skipped = wanted(tasks, agents, seeds, arguments)
    for sentence in skipped:
        say(sentence)
    tasks = [task for task in tasks if any(cell.env_id == task.env_id for cell in cells)]
    times = timings(cells, _QUICK_DECISIONS if arguments.quick else DECISIONS)
    store.check(folder, cells, times, fresh=arguments.fresh)
    missing = [cell for cell in cells if arguments.fresh or not isinstance(store.look(folder, cell), Cell)]
    with ExitStack() as written:
        with play.workers(arguments.threads, arguments.cluster if missing else None) as pool:
            # All that can be wrong with an agent is said before anything is written.
            descriptions = play.describe_all(pool, missing)
            written.enter_context(store.writing(folder, [task.env_id for task in tasks]))
            store.check(folder, cells, times, fresh=arguments.fresh)  # again: another run may have written since
            played = play_missing(arguments, pool, cells, descriptions, folder, say)
        # Decisions are timed and plans recorded on this machine, wherever the episodes were played.
        with play.workers(1, threads=THREADS) as machine:
            measured = time_missing(arguments, machine, times, folder, say)
            shown = [show(machine, task, played, measured, folder, say) for task in tasks]
    for table, files in shown:
        console.print(table)
        say(f"wrote {', '.join(files)}")
    console.print(f"{time.perf_counter() - began:.0f} s; results are in {folder}", soft_wrap=True)


def play_missing(
    arguments: Arguments, pool: play.Workers, cells: Sequence[Wanted], descriptions: play.Descriptions, folder: Path, say: Say
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
        late = play.describe_all(pool, [cell for cell in missing if cell not in descriptions])
        origin = {"command": as_typed(sys.argv[1:]), "commit": provenance.commit(), "versions": provenance.versions()}
        origin |= {"hardware": pool.hardware()}
        there |= play.play_all(pool, missing, {**descriptions, **late}, folder, origin, say)
    damaged = []
    for wanted, played in there.items():
        try:
            paths_of(folder, wanted, played)
        except ValueError as error:
            say(f"the first episodes of {played.agent} on {played.env_id} are played again: {error}")
            damaged.append(wanted)
    play.play_first(pool, damaged, folder)
    return {cell: there[cell] for cell in cells}


def paths_of(folder: Path, wanted: Wanted, cell: Cell) -> recording.Paths | None:
    """Paths of a cell's first episodes, None if their file is missing. ValueError, naming it, if it is damaged."""
    return recording.read_paths(store.paths_path(folder, wanted), len(cell.seeds), cell.episode_steps)


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


def time_missing(
    arguments: Arguments, machine: play.Workers, times: Sequence[Wanted], folder: Path, say: Say
) -> list[Timing]:
    """All timings, measuring those that are not there; without those of agents that cannot be timed."""
    hardware = provenance.hardware()
    there: dict[Wanted, Timing] = {}
    for one in times:
        found = store.look_for_timing(folder, one, hardware)
        if isinstance(found, Timing) and not arguments.fresh and not arguments.retime:
            there[one] = found
        elif isinstance(found, str):
            say(f"{one.name} on {one.env_id} is timed again: {found}")
    missing = [one for one in times if one not in there]
    there |= play.time_all(machine, missing, folder, hardware, provenance.commit(), say)
    return [there[one] for one in times if one in there]


def show(
    machine: play.Workers, task: Task, played: Mapping[Wanted, Cell], times: Sequence[Timing], folder: Path, say: Say
) -> tuple[Group, list[str]]:
    """Write the table and the pictures of an environment; the table for the screen, and the names of the files."""
    from dfplan.benchmarks.report import pictures, summaries, tables

    mine = {wanted: cell for wanted, cell in played.items() if wanted.env_id == task.env_id}
    players = {(cell.agent, cell.training_seed): wanted for wanted, cell in mine.items()}

    def record(cell: Cell, seed: int) -> recording.Denoising | None:
        try:
            return machine.call(f"a plan of {cell.agent}", play.record_plan, players[cell.agent, cell.training_seed], seed)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            say(f"no plan of {cell.agent} is drawn: {error}")
            return None

    drawn: dict[str, tuple[Cell, recording.Paths]] = {}
    for wanted, cell in mine.items():
        paths = paths_of(folder, wanted, cell) if cell.agent not in drawn else None
        if paths is not None:
            drawn[cell.agent] = cell, paths
    place = folder / short_name(task.env_id)
    summary = summaries.summarize(list(mine.values()), [timing for timing in times if timing.env_id == task.env_id])
    tables.write(place, summary)
    pictures.write(place, task.layout, drawn, record)
    names = [name for name in ("table.md", "table.csv", "paths.png", "denoising.gif") if (place / name).exists()]
    return tables.to_rich(summary), names


@command.with_arguments(
    Arguments,
    __doc__,
    interrupted="what was played is kept, and the same command, without --fresh, goes on from there",
    failures=(play.WorkersDiedError,),
)
def _main(arguments: Arguments) -> None:
    run(arguments, command.console())


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark with these words of a command line, or those of this process."""
    return _main(with_address(list(sys.argv[1:] if words is None else words)))


def with_address(words: list[str]) -> list[str]:
    """The command line with 'local' after a --cluster that no address follows."""
    found = []
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        found += [word, cluster.LOCAL] if word == "--cluster" and following.startswith("-") else [word]
    return found


if __name__ == "__main__":
    sys.exit(main())
