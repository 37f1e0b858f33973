"""Train the weights of an agent: collect the data if missing, train, and write one weights file.

    python benchmarks/train.py --env maze2d-large
    python benchmarks/train.py --env all --recipe all
    python benchmarks/train.py --data my-robot.npz --recipe bc

Ctrl-C or a kill at any moment loses little: the same command goes on from the last checkpoint and, on a CPU with the same
number of threads, ends with the same weights bit for bit.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

from dfplan import command
from dfplan.benchmarks import provenance, rows, scores
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import suite
from dfplan.config_json import config_to_json
from dfplan.data.pictures import Pictured
from dfplan.data.spec import Spec
from dfplan.envs.registry import Task, find, short_name
from dfplan.names import unknown
from dfplan.training.fit import WEIGHTS, Recipe, fit
from dfplan.training.loop import require_trainable

LARGEST_SEED = 2**31 - 1
"""What all the random generators that are seeded take."""


@dataclass(frozen=True)
class Arguments:
    """What to train, on what, and where."""

    env: str | None = None
    """Environment in which it is scored, with or without its version, or a suite of them ('all': the three mazes), whose own
    data are used without --data. Without --env and --data: maze2d-large."""
    recipe: str = "default"
    """What to train: 'default', 'paper', a baseline such as 'diffuser' or 'iql', or 'all' of them."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    steps: int | None = None
    """Optimizer steps of the whole run instead of the recipe's own number. They are set at the start of a run: its learning
    rate ends at its last step."""
    data: str | None = None
    """Minari id, D4RL HDF5 file, npz file or 'd4rl:NAME'; without it the environment's own data, collected now if missing."""
    run_dir: Path | None = None
    """Folder of the run, empty or not there yet, or one to be continued; without it runs/WEIGHTS-seedN."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks compute."""
    devices: int = 1
    """Number of devices; on a CPU, of processes. Each sees a batch of its own."""
    threads: int = 1
    """CPU threads of each process. One is best for these small networks: use further cores for further runs."""
    quiet: bool = False
    """Show nothing."""


NO_EFFECT = ("run_dir", "accelerator", "devices", "threads", "quiet")
"""Options that are not in the command on a card."""


def prepare(arguments: Arguments) -> None:
    """Set the number of threads. ValueError for an option that no recipe can be trained with on this machine."""
    for name in ("threads", "devices", "steps"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if not 0 <= arguments.seed <= LARGEST_SEED:
        raise ValueError(f"--seed must lie in 0..{LARGEST_SEED}, not {arguments.seed}")
    import torch  # late: see dfplan.command

    there = torch.cuda.device_count()
    if arguments.accelerator == "cuda" and arguments.devices > there:
        asked = f"{arguments.devices} CUDA devices are asked for"
        raise ValueError(f"--accelerator cuda: {asked}, and torch finds {there or 'none'} here")
    torch.set_num_threads(arguments.threads)


def each(arguments: Arguments) -> list[Arguments]:
    """One for each task and recipe: 'all' stands for every one, without recipes of rows for other suites.

    ValueError if they would share a folder.
    """
    env = "maze2d-large" if arguments.env is None and arguments.data is None else arguments.env
    family = None if env is None else suite.called(env)
    envs = [env] if family is None else family.trained
    names = [*RECIPES, *ONLINE] if arguments.recipe == "all" else [arguments.recipe]
    if len(envs) * len(names) > 1 and arguments.run_dir is not None:
        raise ValueError("several recipes cannot share one --run-dir: leave it out, and each has its folder in runs/")
    made_for = {name: rows.of_recipe(name).suites for name in names} if arguments.recipe == "all" else {}
    return [
        replace(arguments, env=env, recipe=name)
        for env in envs
        for name in names
        if not made_for.get(name) or (env is not None and find(env).suite in made_for[name])
    ]


def train(arguments: Arguments) -> Path:
    """Train one recipe for one task, or without one on any data; the path of its weights.

    Raises KeyError for an unknown environment or recipe, ValueError for what cannot be trained.
    """
    recipe, task = arguments.recipe, None if arguments.env is None else find(arguments.env)
    if recipe not in {*RECIPES, *ONLINE}:
        raise unknown("recipe", recipe, [*RECIPES, *ONLINE])
    if task is not None:
        rows.require_recipes(task)
    weights = rows.of_data(name_of(str(arguments.data)) if task is None else short_name(task.data_id), recipe)
    about = {
        "name": rows.weights_name(weights, arguments.seed),
        "command": command.typed("benchmarks/train.py", arguments, leave_out=NO_EFFECT),
        "hardware": provenance.hardware() | {"accelerator": arguments.accelerator, "threads": arguments.threads},
        "versions": provenance.versions(),
    }
    folder = arguments.run_dir or rows.run_folder(weights, arguments.seed)
    if recipe in RECIPES:
        return _offline(arguments, task, folder, about)
    if arguments.data is not None or task is None:
        raise ValueError(f"the recipe {recipe!r} learns in the environment and takes no --data")
    return _online(arguments, task, weights, folder, about)


def name_of(source: str) -> str:
    """What a folder can be called that is named after data: 'a-drive' of my/a drive.npz, 'mujoco-hopper-medium-v0'."""
    path = Path(source)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.suffix in (".npz", ".hdf5", ".h5") else source)


def _offline(arguments: Arguments, task: Task | None, folder: Path, about: dict[str, Any]) -> Path:
    """Train on recorded data, collecting them first if they are missing."""

    def recipe_for(spec: Spec) -> Recipe:
        recipe = recipe_of(arguments.recipe, task, spec)
        if recipe.stacked and arguments.seed:
            seeds = f"the seeds 0 to {len(recipe.seeds) - 1}"
            raise ValueError(f"{arguments.recipe!r} trains {seeds} in one run: leave --seed out")
        steps = arguments.steps or recipe.train.steps
        recipe = replace(recipe, train=replace(recipe.train, seed=arguments.seed, steps=steps))
        require_trainable(folder, recipe.train, {"model": config_to_json(recipe.model)}, arguments.devices)
        return recipe

    began, spec = time.perf_counter(), suite.of(task).spec
    # Where widths are known, whatever is wrong with the run is found before the data are read.
    early = None if spec is None else recipe_for(spec)
    data, encoder = suite.data_of(task, arguments.data), None
    if isinstance(data, Pictured):
        data, encoder = _encoded(data, arguments, task)
    recipe = early or recipe_for(Spec.of(data))
    if not arguments.quiet:
        print(f"{data.name}: {len(data):,} steps, ready after {time.perf_counter() - began:.0f} s")
    scored = {} if task is None else _scored(arguments.recipe, find(task.data_id))
    how: dict[str, Any] = {name: getattr(arguments, name) for name in ("accelerator", "devices", "quiet")}
    fit(recipe, data, folder, **scored, about=about, encoder=encoder, **how)
    return folder / WEIGHTS


def _encoded(data: Pictured, arguments: Arguments, task: Task | None) -> tuple[Any, Any]:
    """The data with numbers in the places of pictures, and what makes them: trained once for all recipes."""
    from dfplan.agents.pictures import encoded  # late: see dfplan.command

    name = name_of(str(arguments.data)) if task is None else short_name(task.data_id)
    folder = arguments.run_dir or rows.run_folder(name, 0)
    how: dict[str, Any] = {"accelerator": arguments.accelerator, "quiet": arguments.quiet}
    return encoded(data, folder.with_name(f"{folder.name}-pictures"), **how)


def _online(arguments: Arguments, task: Task, weights: str, folder: Path, about: dict[str, Any]) -> Path:
    """Train by stable-baselines3 in the environment itself."""
    name, quiet = arguments.recipe, arguments.quiet
    if arguments.devices > 1:
        raise ValueError(f"the recipe {name!r} trains on one device, not on {arguments.devices}")
    from dfplan.agents.online import trainer  # late: stable-baselines3 takes seconds to import

    family = suite.of(task)
    where = find(family.learns_in(task, not rows.of_recipe(name).single_goal))
    recipe = ONLINE[name](weights, where.env_id, family.budget(task, Spec(1, 1, longest=task.max_episode_steps)))
    recipe = replace(recipe, steps=arguments.steps or recipe.steps)
    make = partial(where.make, disable_env_checker=True, **(family.with_goal if recipe.hindsight else {}))
    device = "cpu" if arguments.accelerator == "auto" else arguments.accelerator  # fastest for networks this small
    about["hardware"]["accelerator"] = device
    how: dict[str, Any] = {"seed": arguments.seed, "device": device, "about": about, "quiet": quiet}
    trainer.fit_online(recipe, folder, make, **_scored(name, where), **how)
    return folder / trainer.WEIGHTS


def recipe_of(name: str, task: Task | None, spec: Spec) -> Recipe:
    """A recipe for a task and data of these widths: the suite's own, if it has one of that name."""
    family = suite.of(task)
    make = resolve_name(family.recipes[name]) if name in family.recipes else RECIPES[name]
    recipe: Recipe = make(spec, family.budget(task, spec))
    return recipe


def _scored(recipe: str, where: Task) -> dict[str, Any]:
    """`score` and `measure` in an environment, of agents that are given what of it they need beyond their weights."""
    row = rows.of_recipe(recipe)
    return {
        name: lambda agents, how=how: how([row.prepared(agent, where) for agent in agents], where.env_id)
        for name, how in (("score", scores.score), ("measure", scores.measure))
    }


@command.with_arguments(Arguments, __doc__, interrupted="the same command goes on from what is done")
def main(arguments: Arguments) -> None:
    """Train what the command line asks for."""
    prepare(arguments)
    for one in each(arguments):
        path = train(one)
        if not arguments.quiet:
            print(f"weights written to {path}")


if __name__ == "__main__":
    sys.exit(main())
