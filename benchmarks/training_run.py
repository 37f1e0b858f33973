"""One training run: a recipe on recorded data, or in an environment, for a task or for data alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dfplan.benchmarks import rows, scores
from dfplan.benchmarks.recipes.budget import Budget, budget_of
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import suite
from dfplan.config_json import config_to_json
from dfplan.data.readers import load
from dfplan.data.spec import Spec
from dfplan.data.trajectories import Trajectories
from dfplan.envs.collect import own_data
from dfplan.envs.registry import Task, find
from dfplan.training.fit import WEIGHTS, Recipe, Score, fit
from dfplan.training.loop import require_trainable


@dataclass(frozen=True)
class Run:
    """What is trained, on what, and where."""

    recipe: str
    """Its name in `RECIPES` or `ONLINE`."""
    task: Task | None
    """What it is for and scored in; None for data alone."""
    data: str | None
    """As `dfplan.load` takes it; None for the task's own."""
    weights: str
    """Their name, without that of the seed."""
    folder: Path
    seed: int
    steps: int | None
    """In place of the recipe's."""
    accelerator: str
    devices: int
    quiet: bool
    about: dict[str, Any]
    """Of the card."""


def offline(run: Run) -> Path:
    """Train a recipe on recorded data, collecting them first if they are missing; the path of its weights.

    ValueError for what cannot be trained.
    """
    began, family = time.perf_counter(), None if run.task is None else suite.of(run.task)
    # Where widths are known, whatever is wrong with the run is found before the data are read.
    early = None if family is None or family.spec is None else recipe_of(run, family.spec)
    data = read_data(run.task, run.data)
    recipe = early or recipe_of(run, Spec.of(data))
    if not run.quiet:
        print(f"{data.name}: {len(data):,} steps, ready after {time.perf_counter() - began:.0f} s")
    scored = {} if run.task is None else scored_in(run.task, run.task.data_id, run.recipe)
    options: dict[str, Any] = {"accelerator": run.accelerator, "devices": run.devices, "quiet": run.quiet}
    fit(recipe, data, run.folder, **scored, **options, about=run.about)
    return run.folder / WEIGHTS


def recipe_of(run: Run, spec: Spec) -> Recipe:
    """The recipe for data of these widths. ValueError for what cannot be trained, or cannot go on in the folder."""
    family = None if run.task is None else suite.of(run.task)
    own = {} if family is None else family.recipes
    make = resolve_name(own[run.recipe]) if run.recipe in own else RECIPES[run.recipe]
    recipe: Recipe = make(spec, budget_for(run.task, spec))
    if recipe.stacked and run.seed:
        raise ValueError(f"{run.recipe!r} trains the seeds 0 to {len(recipe.seeds) - 1} in one run: leave --seed out")
    steps = recipe.train.steps if run.steps is None else run.steps
    recipe = replace(recipe, train=replace(recipe.train, seed=run.seed, steps=steps))
    require_trainable(run.folder, recipe.train, {"model": config_to_json(recipe.model)}, run.devices)
    return recipe


def budget_for(task: Task | None, spec: Spec) -> Budget:
    """The numbers of a task that recipes ask for, or those that follow from the data."""
    chosen = None if task is None else suite.of(task).budget
    return budget_of(spec) if chosen is None or task is None else chosen(task)


def online(run: Run) -> Path:
    """Train a recipe of stable-baselines3 in the environment itself. ValueError for what cannot be trained."""
    if run.data is not None or run.task is None:
        raise ValueError(f"the recipe {run.recipe!r} learns in the environment and takes no --data")
    if run.devices > 1:
        raise ValueError(f"the recipe {run.recipe!r} trains on one device, not on {run.devices}")
    # Late: stable-baselines3 takes seconds to import.
    from dfplan.agents.online.trainer import WEIGHTS as MODEL
    from dfplan.agents.online.trainer import fit_online

    family = suite.of(run.task)
    env_id = family.learns_in(run.task, rows.of_recipe(run.recipe).tasks == "any")
    budget = budget_for(run.task, Spec(1, 1, longest=run.task.max_episode_steps))
    recipe = ONLINE[run.recipe](run.weights, env_id, budget)
    recipe = replace(recipe, steps=recipe.steps if run.steps is None else run.steps)
    make = partial(find(env_id).make, disable_env_checker=True, **(family.with_goal if recipe.hindsight else {}))
    device = "cpu" if run.accelerator == "auto" else run.accelerator  # fastest for networks this small
    run.about["hardware"]["accelerator"] = device
    options: dict[str, Any] = {"seed": run.seed, "device": device, "about": run.about, "quiet": run.quiet}
    fit_online(recipe, run.folder, make, **scored_in(run.task, env_id, run.recipe), **options)
    return run.folder / MODEL


def scored_in(task: Task, env_id: str, recipe: str) -> dict[str, Any]:
    """`score` and `measure` in an environment, of agents that are given what of it they need beyond their weights."""

    def prepared(how: Callable[[Sequence[Any], str], Mapping[str, Any]]) -> Score:
        row = rows.of_recipe(recipe)
        return lambda agents: how([row.prepared(agent, find(env_id)) for agent in agents], env_id)

    return {"score": prepared(scores.score), "measure": prepared(scores.measure)}


def read_data(task: Task | None, source: str | None) -> Trajectories:
    """The data to train on; a task's own data are collected first if they are not there or not whole."""
    if task is None:
        return load(str(source))
    return suite.of(task).read(task, own_data(task.data_id) if source is None else source)
