"""One training run: a recipe on recorded data, or in an environment, for a task or for data alone."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dfplan.benchmarks import provenance, rows, scores
from dfplan.benchmarks.recipes.budget import Budget, budget_of
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import suite
from dfplan.config_json import config_to_json
from dfplan.data.readers import load
from dfplan.data.spec import Spec
from dfplan.data.trajectories import Trajectories
from dfplan.envs.collect import own_data
from dfplan.envs.registry import Task, find, short_name
from dfplan.names import unknown
from dfplan.training.fit import WEIGHTS, Recipe, fit
from dfplan.training.loop import require_trainable


def train(
    env: str | None,
    recipe: str,
    seed: int,
    steps: int | None,
    data: str | None,
    run_dir: Path | None,
    threads: int,
    **how: Any,
) -> Path:
    """Train one recipe for one task, or with `env=None` on any data; the path of its weights.

    Arguments are those of `dfplan.benchmarks.train`; `how`: accelerator, devices and quiet. Raises KeyError for an unknown
    environment or recipe, ValueError for what cannot be trained.
    """
    if recipe not in {*RECIPES, *ONLINE}:
        raise unknown("recipe", recipe, [*RECIPES, *ONLINE])
    task = None if env is None else find(env)
    if task is not None:
        rows.require_recipes(task)
    weights = rows.of_data(name_of(str(data)) if task is None else short_name(task.data_id), recipe)
    # The command that trains these weights, without what has no effect on them.
    asked = {"env": env, "recipe": recipe, "seed": seed, "steps": steps, "data": data}
    words = (word for name, value in asked.items() if value is not None for word in (f"--{name}", str(value)))
    about = {
        "name": rows.weights_name(weights, seed),
        "command": shlex.join(["python", "benchmarks/train.py", *words]),
        "hardware": provenance.hardware() | {"accelerator": how["accelerator"], "threads": threads},
        "versions": provenance.versions(),
    }
    folder = run_dir or rows.run_folder(weights, seed)
    if recipe in RECIPES:
        return _offline(recipe, task, data, folder, seed, steps, about, **how)
    if data is not None or task is None:
        raise ValueError(f"the recipe {recipe!r} learns in the environment and takes no --data")
    return _online(recipe, task, weights, folder, seed, steps, about, **how)


def name_of(source: str) -> str:
    """What a folder can be called that is named after data: 'a-drive' of my/a drive.npz, 'mujoco-hopper-medium-v0'."""
    path = Path(source)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.suffix in (".npz", ".hdf5", ".h5") else source)


def _offline(
    name: str, task: Task | None, source: str | None, folder: Path, seed: int, steps: int | None, about: Any, **how: Any
) -> Path:
    """Train on recorded data, collecting them first if they are missing."""

    def recipe_for(spec: Spec) -> Recipe:
        recipe = recipe_of(name, task, spec)
        if recipe.stacked and seed:
            raise ValueError(f"{name!r} trains the seeds 0 to {len(recipe.seeds) - 1} in one run: leave --seed out")
        recipe = replace(recipe, train=replace(recipe.train, seed=seed, steps=steps or recipe.train.steps))
        require_trainable(folder, recipe.train, {"model": config_to_json(recipe.model)}, how["devices"])
        return recipe

    began, spec = time.perf_counter(), None if task is None else suite.of(task).spec
    # Where widths are known, whatever is wrong with the run is found before the data are read.
    early = None if spec is None else recipe_for(spec)
    data = read_data(task, source)
    recipe = early or recipe_for(Spec.of(data))
    if not how["quiet"]:
        print(f"{data.name}: {len(data):,} steps, ready after {time.perf_counter() - began:.0f} s")
    fit(recipe, data, folder, **({} if task is None else _scored(task, task.data_id, name)), about=about, **how)
    return folder / WEIGHTS


def _online(
    name: str, task: Task, weights: str, folder: Path, seed: int, steps: int | None, about: Any, **how: Any
) -> Path:
    """Train by stable-baselines3 in the environment itself."""
    if how["devices"] > 1:
        raise ValueError(f"the recipe {name!r} trains on one device, not on {how['devices']}")
    # Late: stable-baselines3 takes seconds to import.
    from dfplan.agents.online.trainer import WEIGHTS as MODEL
    from dfplan.agents.online.trainer import fit_online

    family = suite.of(task)
    env_id = family.learns_in(task, not rows.of_recipe(name).single_goal)
    recipe = ONLINE[name](weights, env_id, budget_for(task, Spec(1, 1, longest=task.max_episode_steps)))
    recipe = replace(recipe, steps=steps or recipe.steps)
    make = partial(find(env_id).make, disable_env_checker=True, **(family.with_goal if recipe.hindsight else {}))
    device = "cpu" if how["accelerator"] == "auto" else how["accelerator"]  # fastest for networks this small
    about["hardware"]["accelerator"] = device
    scored = _scored(task, env_id, name)
    fit_online(recipe, folder, make, **scored, seed=seed, device=device, about=about, quiet=how["quiet"])
    return folder / MODEL


def recipe_of(name: str, task: Task | None, spec: Spec) -> Recipe:
    """A recipe for a task and data of these widths: the suite's own, if it has one of that name."""
    own = {} if task is None else suite.of(task).recipes
    make = resolve_name(own[name]) if name in own else RECIPES[name]
    recipe: Recipe = make(spec, budget_for(task, spec))
    return recipe


def budget_for(task: Task | None, spec: Spec) -> Budget:
    """The numbers of a task that recipes ask for, or those that follow from the data."""
    chosen = None if task is None else suite.of(task).budget
    return budget_of(spec) if chosen is None or task is None else chosen(task)


def _scored(task: Task, env_id: str, recipe: str) -> dict[str, Any]:
    """`score` and `measure` in an environment, of agents that are given what of it they need beyond their weights."""
    row, where = rows.of_recipe(recipe), find(env_id)
    return {
        name: lambda agents, how=how: how([row.prepared(agent, where) for agent in agents], env_id)
        for name, how in (("score", scores.score), ("measure", scores.measure))
    }


def read_data(task: Task | None, source: str | None) -> Trajectories:
    """The data to train on; a task's own data are collected first if they are not there or not whole."""
    if task is None:
        return load(str(source))
    return suite.of(task).read(task, own_data(task.data_id) if source is None else source)
