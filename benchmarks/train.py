"""Train the weights of an agent: collect the data if missing, train, and write one weights file.

    python benchmarks/train.py --env maze2d-large
    python benchmarks/train.py --env all --recipe all

Ctrl-C or a kill at any moment loses little: the same command goes on from the last checkpoint and, on a CPU with the same
number of threads, ends with the same weights bit for bit.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dfplan import command
from dfplan.benchmarks import rows
from dfplan.benchmarks.provenance import hardware, versions
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import maze2d
from dfplan.config_json import config_to_json
from dfplan.data.features import Features
from dfplan.data.readers import load, load_minari
from dfplan.data.trajectories import Trajectories
from dfplan.envs.collect import own_data
from dfplan.envs.registry import Task, find
from dfplan.training.fit import WEIGHTS, Score, fit
from dfplan.training.loop import require_trainable

ACCELERATORS = ("auto", "cpu", "cuda")
LARGEST_SEED = 2**31 - 1
"""What all the random generators that are seeded take."""


@dataclass(frozen=True)
class Arguments:
    """What to train, on what, and where."""

    env: str = "maze2d-large"
    """Environment, with or without its version, or 'all': the three mazes."""
    recipe: str = "default"
    """What to train: 'default', 'paper', a baseline such as 'diffuser' or 'iql', or 'all' of them."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    steps: int | None = None
    """Optimizer steps of the whole run instead of the recipe's own number. They are set at the start of a run: its learning
    rate ends at its last step."""
    data: str | None = None
    """Minari id, D4RL HDF5 file, npz file or 'd4rl:NAME'; without it the maze's own data, collected now if missing."""
    run_dir: Path | None = None
    """Folder of the run, empty or not there yet, or one to be continued; without it runs/WEIGHTS-seedN."""
    accelerator: str = "auto"
    """auto, cpu or cuda."""
    devices: int = 1
    """Number of devices; on a CPU, of processes. Each sees a batch of its own."""
    threads: int = 1
    """CPU threads of each process. One is best for these small networks: use further cores for further runs."""
    quiet: bool = False
    """Show nothing."""


def prepare(arguments: Arguments) -> None:
    """Set the number of threads. ValueError for an option that no recipe can be trained with on this machine."""
    for name in ("threads", "devices", "steps"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if not 0 <= arguments.seed <= LARGEST_SEED:
        raise ValueError(f"--seed must lie in 0..{LARGEST_SEED}, not {arguments.seed}")
    if arguments.accelerator not in ACCELERATORS:
        raise ValueError(f"--accelerator must be {', '.join(ACCELERATORS[:-1])} or cuda, not {arguments.accelerator!r}")
    import torch  # late: see dfplan.command

    if arguments.accelerator == "cuda" and arguments.devices > torch.cuda.device_count():
        there = torch.cuda.device_count() or "none"
        raise ValueError(
            f"--accelerator cuda: {arguments.devices} CUDA devices are asked for, and torch finds {there} here"
        )
    torch.set_num_threads(arguments.threads)


def each(arguments: Arguments) -> list[Arguments]:
    """One for each maze and recipe: 'all' stands for every one. ValueError if they would share a folder."""
    envs = [f"maze2d-{maze}" for maze in maze2d.BUDGETS] if arguments.env == "all" else [arguments.env]
    names = [*RECIPES, *ONLINE] if arguments.recipe == "all" else [arguments.recipe]
    if len(envs) * len(names) > 1 and arguments.run_dir is not None:
        raise ValueError("several recipes cannot share one --run-dir: leave it out, and each has its folder in runs/")
    return [replace(arguments, env=env, recipe=name) for env in envs for name in names]


def train_one(arguments: Arguments) -> Path:
    """Train one recipe for one task; the path of its weights."""
    task, row = find(arguments.env), rows.of_recipe(arguments.recipe)
    rows.require_recipes(task)
    weights = row.weights_name(task)
    run_dir = arguments.run_dir or rows.run_folder(weights, arguments.seed)
    about = {
        "name": rows.weights_name(weights, arguments.seed),
        "command": as_typed(arguments),
        "hardware": hardware() | {"accelerator": arguments.accelerator, "threads": arguments.threads},
        "versions": versions(),
    }
    train = train_online if arguments.recipe in ONLINE else train_offline
    return train(arguments, task, row, run_dir, about)


def train_offline(arguments: Arguments, task: Task, row: rows.Row, run_dir: Path, about: dict[str, Any]) -> Path:
    """Train a recipe on recorded data, collecting them first if they are missing."""
    recipe = RECIPES[arguments.recipe](maze2d.SPEC, maze2d.budget(task))
    if recipe.stacked and arguments.seed:
        last = len(recipe.seeds) - 1
        raise ValueError(f"{arguments.recipe!r} trains the seeds 0 to {last} in one run: leave --seed out")
    steps = recipe.train.steps if arguments.steps is None else arguments.steps
    recipe = replace(recipe, train=replace(recipe.train, seed=arguments.seed, steps=steps))
    require_trainable(run_dir, recipe.train, {"model": config_to_json(recipe.model)}, arguments.devices)
    began = time.perf_counter()
    data = read_data(task.data_id, arguments.data)
    if not arguments.quiet:
        print(f"{data.name}: {len(data):,} steps, ready after {time.perf_counter() - began:.0f} s")
    devices: dict[str, Any] = {"accelerator": arguments.accelerator, "devices": arguments.devices}
    fit(recipe, data, run_dir, **scores(row, task.data_id), **devices, about=about, quiet=arguments.quiet)
    return run_dir / WEIGHTS


def train_online(arguments: Arguments, task: Task, row: rows.Row, run_dir: Path, about: dict[str, Any]) -> Path:
    """Train a recipe of stable-baselines3 in the environment itself."""
    if arguments.data is not None:
        raise ValueError(f"the recipe {arguments.recipe!r} learns in the environment and takes no --data")
    if arguments.devices > 1:
        raise ValueError(f"the recipe {arguments.recipe!r} trains on one device, not on {arguments.devices}")
    # Late: stable-baselines3 takes seconds to import.
    from dfplan.agents.online.trainer import WEIGHTS as MODEL
    from dfplan.agents.online.trainer import fit_online

    recipe = ONLINE[arguments.recipe](row.weights_name(task), task, maze2d.budget(task))
    recipe = replace(recipe, steps=recipe.steps if arguments.steps is None else arguments.steps)
    make = partial(maze2d.make, recipe.env_id, goal_conditioned=recipe.hindsight > 0)
    device = "cpu" if arguments.accelerator == "auto" else arguments.accelerator  # fastest for networks this small
    about["hardware"]["accelerator"] = device
    options: dict[str, Any] = {"seed": arguments.seed, "device": device, "about": about, "quiet": arguments.quiet}
    fit_online(recipe, run_dir, make, **scores(row, recipe.env_id), **options)
    return run_dir / MODEL


def scores(row: rows.Row, env_id: str) -> dict[str, Any]:
    """The maze's `score` and `measure`, of agents that are given what of the maze they need beyond their weights."""

    def of_row(how: Callable[[Sequence[Any], str], Mapping[str, Any]]) -> Score:
        return lambda agents: how([row.prepared(agent, find(env_id)) for agent in agents], env_id)

    return {"score": of_row(maze2d.score), "measure": of_row(maze2d.measure)}


def read_data(env: str, source: str | None) -> Trajectories:
    """The data to train on; a maze's own data is collected first if it is not there or not whole."""
    if source is None:
        return load_minari(own_data(env))
    data = load(source)
    if "observation" in data.features.keys:  # goals are columns of that entry: a recipe says which
        return load(source, features=Features(keys=("observation",)))
    return data


def as_typed(arguments: Arguments) -> str:
    """The command that trains these weights, without what has no effect on them."""
    asked = {name: getattr(arguments, name) for name in ("env", "recipe", "seed", "steps", "data")}
    words = (word for name, value in asked.items() if value is not None for word in (f"--{name}", str(value)))
    return shlex.join(["python", "benchmarks/train.py", *words])


@command.with_arguments(Arguments, __doc__, interrupted="the same command goes on from what is done")
def main(arguments: Arguments) -> None:
    """Train what the command line asks for."""
    prepare(arguments)
    for one in each(arguments):
        path = train_one(one)
        if not arguments.quiet:
            print(f"weights written to {path}")


if __name__ == "__main__":
    sys.exit(main())
