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

# Idle OpenMP threads that spin slow a small network down many times on a machine with few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from dfplan.benchmarks import cluster, evaluation, output, provenance, registry, store, workers
from dfplan.benchmarks.cells import Cell, Timing
from dfplan.benchmarks.processes import Executor, Processes, WorkersDiedError
from dfplan.benchmarks.protocol import EPISODES, TRAINING_SEEDS, evaluation_seeds
from dfplan.benchmarks.timing import DECISIONS
from dfplan.benchmarks.wanted import Wanted, WantedTiming, timings, wanted
from dfplan.envs.reference import reference
from dfplan.envs.tasks import Task, find

ALL = tuple(f"{family}-{maze}" for family in ("maze2d", "multi2d") for maze in ("umaze", "medium", "large"))
"""What ``--env all`` stands for."""
_QUICK_EPISODES, _QUICK_DECISIONS = 10, 100


@dataclass(frozen=True)
class Arguments:
    env: tuple[str, ...] = ("maze2d-large",)
    """Environments, with or without their version, or 'all': the three mazes, with a fixed and with random goals."""
    agents: tuple[str, ...] = registry.DEFAULT_ROWS
    """Rows of the table: registered names, 'all', package.module:Class for your own agent, or sb3:PATH for a model of
    stable-baselines3. sb3-trust-pickle:PATH runs the code in that file's pickles, which a policy class of your own needs."""
    training_seeds: tuple[int, ...] | None = None
    """Training seeds of the agents that are trained; without it all that have weights, with --quick the first one."""
    episodes: int | None = None
    """Episodes of each agent and training seed; without it 100, or 10 with --quick."""
    seed: int = 0
    """Which block of evaluation episodes to play."""
    device: str = "cpu"
    """Where agents compute: cpu or cuda."""
    train: bool = False
    """Train missing weights first (collecting the data if it is missing), which takes long."""
    quick: bool = False
    """A look within 90 seconds: 10 episodes, one training seed, fewer timed decisions."""
    fresh: bool = False
    """Play everything again, whatever results there are."""
    retime: bool = False
    """Time decisions again, whatever timings there are."""
    output: Path | None = None
    """Folder for the files; without it results, or results/block1 for the episodes of --seed 1."""
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
    for seed in arguments.training_seeds or ():
        if seed not in TRAINING_SEEDS:
            raise ValueError(f"training seeds are {', '.join(map(str, TRAINING_SEEDS))}, not {seed}")
    if arguments.threads < 1:
        raise ValueError(f"threads must be at least 1, not {arguments.threads}")
    episodes = _QUICK_EPISODES if arguments.quick else EPISODES
    seeds = evaluation_seeds(episodes if arguments.episodes is None else arguments.episodes, arguments.seed)
    block = Path("results") / f"block{arguments.seed}" if arguments.seed else Path("results")
    folder = arguments.output or block
    _check_output(folder)
    return tasks, seeds, folder


def _check_output(folder: Path) -> None:
    """Say now, not after minutes of playing, that nothing can be written there."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"cannot write into the output folder {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"cannot write into the output folder {folder}: no permission to write in {existing}")


def seeds_of(row: registry.Row, task: Task, arguments: Arguments) -> Sequence[int | None]:
    """Which training seeds of a row to play; missing weights are trained first if that was asked for."""
    try:
        found = row.training_seeds(task, arguments.training_seeds)
    except registry.MissingWeightsError as missing:
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
    tasks, seeds, folder = check(arguments)
    everything = arguments.agents == ("all",)
    agents = tuple(registry.ROWS) if everything else arguments.agents
    cells, skipped = wanted(
        tasks, agents, seeds, arguments.device, lambda row, task: seeds_of(row, task, arguments),
        skip=everything and not arguments.train,
    )  # fmt: skip
    for sentence in skipped:
        console.print(sentence, style="dim", soft_wrap=True)
    if not cells:
        raise ValueError("none of the agents can play any of the environments")
    play(arguments, cells, folder, console)
    machine = Processes(1)  # decisions are timed and plans recorded here, wherever the episodes were played
    try:
        times = timings(cells, _QUICK_DECISIONS if arguments.quick else DECISIONS)
        measured = time_all(arguments, machine, times, folder)
        for task in tasks:
            of_task = [cell for cell in cells if cell.task == task]
            if of_task:
                show(machine, task, of_task, [measured[w] for w in times if w.task == task], folder, console)
    finally:
        machine.close()
    console.print(f"{time.perf_counter() - began:.0f} s; results are in {folder}", soft_wrap=True)


def play(arguments: Arguments, cells: Sequence[Wanted], folder: Path, console: Console) -> None:
    """Play the cells that are not there."""
    if arguments.fresh:
        for cell in cells:
            store.forget(folder, cell)
    missing = [cell for cell in cells if store.whole(folder, cell) is None]
    if len(missing) < len(cells):
        console.print(f"{len(cells) - len(missing)} of {len(cells)} results are there and used again", style="dim")
    if not missing:
        return
    workers_of_run = executor(arguments)
    try:
        machine = getattr(workers_of_run, "hardware", provenance.hardware)()
        evaluation.play(workers_of_run, missing, folder, origin() | {"hardware": machine})
    finally:
        workers_of_run.close()


def origin() -> dict[str, Any]:
    """What result files say of how they were made, without the hardware and the folder that they were written to."""
    words = list(sys.argv[1:])
    if "--output" in words:
        at = words.index("--output")
        del words[at : at + 2]
    command = " ".join(["python benchmarks/run.py", *words])
    return {"command": command, "commit": provenance.commit(), "versions": provenance.versions()}


def time_all(
    arguments: Arguments, machine: Executor, times: Sequence[WantedTiming], folder: Path
) -> dict[WantedTiming, Timing]:
    """All timings, measuring those that are not there."""
    hardware = provenance.hardware()

    def there(one: WantedTiming) -> Timing | None:
        return store.timed(folder, one, hardware)

    missing = [one for one in times if arguments.fresh or arguments.retime or there(one) is None]
    evaluation.time_decisions(machine, missing, folder, hardware, provenance.commit())
    return {one: found for one in times if (found := there(one)) is not None}


def show(
    machine: Executor, task: Task, wanted: Sequence[Wanted], times: Sequence[Timing], folder: Path, console: Console
) -> None:
    """Print the table of an environment and write its files."""
    from dfplan.benchmarks import report

    found = {one: cell for one in wanted if (cell := store.whole(folder, one)) is not None}
    players = {(cell.agent, cell.training_seed): one.player for one, cell in found.items()}

    def record(cell: Cell, seed: int) -> workers.Denoising | None:
        player = players[cell.agent, cell.training_seed]
        return evaluation.call(machine, f"a plan of {cell.agent}", workers.record_denoising, player, seed)

    console.print(report.to_rich(list(found.values()), times))
    names = output.write(folder, task, list(found.values()), times, record)
    console.print(f"wrote {', '.join(names)}", style="dim", soft_wrap=True)


def main() -> int:
    words = sys.argv[1:]
    arguments = tyro.cli(Arguments, description=__doc__, args=with_address(words))
    console = Console(width=None if sys.stdout.isatty() else 130)
    try:
        run(arguments, console)
    except (ValueError, KeyError, OSError, WorkersDiedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, WorkersDiedError) else 2
    except KeyboardInterrupt:
        again = "the same command, without --fresh," if arguments.fresh else "the same command"
        print(f"interrupted; what was played is kept, and {again} goes on from there", file=sys.stderr)
        return 130
    return 0


def with_address(words: list[str]) -> list[str]:
    """The command line with 'local' after a --cluster that no address follows."""
    found = []
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        found += [word, cluster.LOCAL] if word == "--cluster" and following.startswith("-") else [word]
    return found


if __name__ == "__main__":
    sys.exit(main())
