"""What is special to a family of tasks, as one value; `of` finds it by the name of a task.

A suite is one file beside this one, `NAME.py`, with `SUITE = Suite(...)`: reference returns, the reading of data,
budgets, recipes and pictures. A new task needs a `Task` in `dfplan.envs.registry` and that file. Torch is not needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

from dfplan.benchmarks.recipes.budget import Budget, budget_of
from dfplan.data.spec import Spec
from dfplan.envs.collect import own_data
from dfplan.envs.registry import TASKS, Task, find, short_name

MAIN = "maze2d"
"""The suite that 'all' stands for, where environments are named."""


def read(task: Task | None, source: str) -> Any:
    """As `dfplan.load` reads it."""
    from dfplan.data.readers import load  # late: torch takes seconds to import

    return load(source)


@dataclass(frozen=True)
class Suite:
    """A family of tasks."""

    tasks: tuple[str, ...] = ()
    """Ids of those in the tables, without versions: what 'all' of the suite stands for."""
    rows: tuple[str, ...] = ("diffusion-forcing", "random")
    """What a run plays that names no agents: no rows that take an hour."""
    reference: Callable[[Task], Mapping[str, float] | None] = lambda task: None
    """The raw returns that a task's normalized score calls 0 ('min') and 100 ('max'); None where there is no such score."""
    spec: Spec | None = None
    """Widths of all its tasks, if they have the same: data of other widths are refused. None: those of the data."""
    read: Callable[[Any, Any], Any] = read
    """A task's data from a source of `dfplan.load`: with its goal and its features."""
    budget: Callable[[Any, Spec], Budget] = lambda task, spec: budget_of(spec)
    """Numbers of a task for the recipes, here those that follow from the data. ValueError for a task that has none."""
    recipes: Mapping[str, str] = field(default_factory=dict)
    """Recipes in place of those of the same name that all suites share: 'module:function' of (spec, budget)."""
    learns_in: Callable[[Task, bool], str] = lambda task, any_goal: task.env_id
    """Id of the environment in which an online learner learns a task: with any goal, or with the task's own."""
    with_goal: Mapping[str, Any] = field(default_factory=dict)
    """Options of `Task.make` that put the goal into the observation, for learners in hindsight."""
    pictures: Callable[..., None] | None = None
    """Writes pictures into a folder, of a task, as `dfplan.benchmarks.report.pictures.write` does: it is given by agent a
    cell, and what records some of its episodes. None: there are none."""
    places: Callable[[Task, Any], Mapping[str, Any]] = lambda task, observations: {}
    """What of planned observations (..., D) a picture shows of a plan: places (..., 2 or 3) in the world, by name."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Those of its tasks whose data and weights serve all of them."""
        return tuple(name for name in self.tasks if short_name(find(name).data_id) == name)


def of(task: Task | None) -> Suite:
    """The suite of a task; of data without a task, one without anything special. ValueError for a name without a file."""
    return Suite() if task is None else named(task.suite)


def data_of(task: Task | None, source: str | None = None) -> Any:
    """A task's data from a source, without one its own, which are collected first if they are not there or not whole."""
    return of(task).read(task, own_data(task.data_id) if source is None and task is not None else source)


def named(name: str) -> Suite:
    """The suite of this name. ValueError for a name without a file."""
    try:
        found: Suite = resolve_name(f"dfplan.benchmarks.suites.{name}:SUITE")
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no suite {name!r} in benchmarks/suites ({error})") from error
    return found


def called(name: str) -> Suite | None:
    """The suite that a name in a command line stands for, 'all' or its own; None for any other name."""
    known = {one.suite for one in TASKS.values()}
    return named(MAIN if name == "all" else name) if name == "all" or name in known else None
