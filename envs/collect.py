"""Collect a task's own data and store it as a local Minari dataset.

    python -m dfplan.envs.collect --env maze2d-large
    python -m dfplan.envs.collect --env cube-single --quick

The recipes are in `dfplan.envs.maze.shards`, `dfplan.envs.ogbench`, `dfplan.envs.ogbench_mazes`,
`dfplan.envs.memory_swap_script`, `dfplan.envs.locomotion` and `dfplan.envs.fetch`.

Finished shards wait in a hidden folder beside the dataset; after an interruption the same command goes on from them.
The dataset appears in one step, when all of it is there. Of two collections of one dataset the second waits for the first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from dfplan import command
from dfplan.envs import assemble, minari_store
from dfplan.envs.fetch import Demonstrations
from dfplan.envs.locomotion import Rollouts
from dfplan.envs.maze.expert import distance_field
from dfplan.envs.maze.layouts import parse, read
from dfplan.envs.maze.shards import DEFAULT_STEPS, MazeRecipe
from dfplan.envs.memory_swap_script import Swaps
from dfplan.envs.ogbench import Play
from dfplan.envs.ogbench_mazes import Guided
from dfplan.envs.registry import CUSTOM_ID, TASKS, MazeTask, Task, find
from dfplan.envs.shards import Recipe, make_shards, remove_shards, shard_path
from dfplan.locks import hold
from dfplan.worker_processes import cores

QUICK_STEPS = 200_000
ROBOTS: dict[str, type[Play | Guided | Swaps | Rollouts | Demonstrations]] = {
    "ogbench": Play,
    "pointmaze": Guided,
    "memory": Swaps,
    "locomotion": Rollouts,
    "fetch": Demonstrations,
}
_LIMITS = {"steps": (1, 10**9), "workers": (1, 256), "seed": (0, 2**63)}


def collect(
    env: str = "maze2d-large",
    layout: str | Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    dataset_id: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    quick: bool = False,
) -> str:
    """Collect a task's own data and return its Minari dataset id.

    Arrays are float32. A maze's data has the expert's target at every observation in `infos["goal"]`. A dataset of dfplan's
    that is not whole is made again.

    Args:
        env: an environment id, or one without its version ('maze2d-large'). All tasks in one maze share its data.
        layout: a maze of the user's own, as text or as the path of a text file, instead of `env`; then `dataset_id`
            must be given.
        steps: how many; None is D4RL's own number for its mazes (1, 2 and 4 million for umaze, medium and large), and a
            million elsewhere (for Fetch 100,000, for memory-swap 30,000).
        seed: same seed, same bytes.
        workers: processes; None is one for each core. The data does not depend on it.
        dataset_id: None is the task's data id after 'dfplan/', as in 'dfplan/maze2d-large-v1'.
        overwrite: replace a dataset of that id. Otherwise an existing one is left alone, which a line on stderr says.
        quiet: no progress bar.
        quick: where `steps` is None, 200,000 at most, and a short training of who acts in locomotion.

    Raises KeyError for an unknown environment; ModuleNotFoundError where its package is missing; ValueError for a bad number,
    layout or dataset id, and where something that is no dataset has the dataset's place; OSError where nothing can be
    written, or a collecting process fails.
    """
    standard: Recipe
    if layout is None:
        env_id, standard = find(env).data_id, own_recipe(find(env), quick)
    else:
        env_id, standard = CUSTOM_ID, _custom_recipe(layout)
        if dataset_id is None:
            raise ValueError("a dataset id is needed for a layout of your own, such as 'mine/maze2d-ring-v0'")
    dataset_id = own_id(find(env)) if dataset_id is None else dataset_id
    steps, seed = _checked("steps", standard.steps if steps is None else steps), _checked("seed", seed)
    workers = _checked("workers", cores() if workers is None else workers)
    recipe = standard.changed(steps, seed)
    target = minari_store.dataset_folder(dataset_id)
    if not overwrite and minari_store.flaw(target) is None:
        _say_it_is_there(dataset_id, target, recipe)
        return dataset_id
    minari_store.prepare(target.parent)
    with hold(target.with_name(f".{target.name}.lock"), f"which collects {dataset_id}", wait=True):
        minari_store.tidy(target)
        if not overwrite and minari_store.flaw(target) is None:  # made while this process waited
            _say_it_is_there(dataset_id, target, recipe)
            return dataset_id
        if os.path.lexists(target):
            _check_replaceable(dataset_id, target, overwrite)
        collected = (task for task in TASKS.values() if not task.published)
        own = next((task for task in collected if own_id(task) == dataset_id), None)
        if own and (different := _differences(recipe.fields, own_recipe(own))):
            print(
                f"warning: later trainings of {own.env_id} take {dataset_id} for its own data, and it will have {different}; "
                "another --dataset-id keeps it apart",
                file=sys.stderr,
            )
        _make(recipe, workers, env_id, dataset_id, target, quiet)
    return dataset_id


def own_id(task: Task) -> str:
    """The Minari id under which trainings look for a task's data."""
    return task.published or f"dfplan/{task.data_id}"


def own_recipe(task: Task, quick: bool = False) -> Recipe:
    """How a task's own data is made, unless a user asks for something else.

    Raises ModuleNotFoundError without the task's package, and ValueError for data that others published.
    """
    if task.published:
        raise ValueError(f"the data of {task.env_id} are published: `minari download {task.published}` fetches them")
    if isinstance(task, MazeTask):
        steps = DEFAULT_STEPS.get(task.maze.removeprefix("eval-"), 1_000_000)
        recipe: Recipe = MazeRecipe(str(task.layout), TASKS[task.data_id].max_episode_steps, steps, seed=0)
    else:
        if task.package is not None:
            task.package.require(f"data of {task.env_id}")
        recipe = ROBOTS[task.suite].own(task, quick)
    return recipe.changed(min(recipe.steps, QUICK_STEPS)) if quick else recipe


def own_data(env: str) -> str:
    """The Minari id of an environment's own data, collected now if it is not there or not whole; of published data, as it is.

    If it was made otherwise than by `own_recipe`, with fewer steps for example, a warning on stderr says so. Raises what
    `collect` raises.
    """
    task = find(env)
    dataset_id = own_id(task)
    if task.published:
        return dataset_id
    folder = minari_store.dataset_folder(dataset_id)
    if minari_store.flaw(folder) is not None:
        collect(env)
    if different := _differences(_made_by(folder), own_recipe(task)):
        print(
            f"warning: {dataset_id}, the data of {task.env_id}, has {different}; "
            f"python -m dfplan.envs.collect --env {task.data_id} --overwrite makes it again",
            file=sys.stderr,
        )
    return dataset_id


def _made_by(folder: Path) -> Mapping[str, Any]:
    """The entries of the recipe that a dataset was made by, as far as its metadata say."""
    about = minari_store.metadata(folder)
    made = about.get("collect_recipe")
    return made if isinstance(made, dict) else {"steps": about.get("total_steps")}


def _differences(made: Mapping[str, Any], recipe: Recipe) -> str:
    """How a dataset differs from a recipe, as in '3,000 steps instead of 1,000,000'; empty if it does not."""
    different = {name: made[name] for name, value in recipe.fields.items() if name in made and made[name] != value}
    return " and ".join(recipe.difference(name, found) for name, found in different.items())


def _say_it_is_there(dataset_id: str, target: Path, recipe: Recipe) -> None:
    different = _differences(_made_by(target), recipe)
    with_what = f", with {different}" if different else ""
    print(f"{dataset_id} is already there, in {target}{with_what}; --overwrite would collect it again", file=sys.stderr)


def _check_replaceable(dataset_id: str, target: Path, overwrite: bool) -> None:
    """Raise ValueError unless what lies in a dataset's place is a dataset that may be replaced."""
    if (entry := minari_store.foreign(target)) is not None:
        raise ValueError(f"{entry} is in the place of {dataset_id} and is no part of a collected dataset: move it away")
    if overwrite:
        return
    reason = minari_store.flaw(target)
    if not (dataset_id.startswith("dfplan/") or _is_collected(target)):
        raise ValueError(f"{dataset_id} is there but not whole ({reason}); --overwrite would replace it")
    print(f"{dataset_id} is not whole ({reason}) and is made again", file=sys.stderr)


def _is_collected(target: Path) -> bool:
    """Whether nothing of another origin is lost with a dataset: its metadata hold a recipe, or it holds no files."""
    try:
        return "collect_recipe" in minari_store.metadata(target)
    except ValueError:
        return not any(path.is_file() for path in target.rglob("*"))


def _custom_recipe(layout: str | Path) -> MazeRecipe:
    """The recipe for a maze of the user's own, in which every cell must be reachable."""
    maze = read(layout) if isinstance(layout, Path) else parse(layout)
    first = maze.free_cells[0].tolist()
    unreachable = np.argwhere((distance_field(maze, (first[0], first[1])) < 0) & ~maze.walls)
    if len(unreachable):
        where = f"{layout}: " if isinstance(layout, Path) else ""
        raise ValueError(f"{where}no way leads from cell {first} of the maze to cell {unreachable[0].tolist()}")
    episode_steps = gymnasium.spec(CUSTOM_ID).max_episode_steps
    assert episode_steps is not None
    return MazeRecipe(str(maze), episode_steps, 1_000_000, seed=0)


def _checked(name: str, value: object) -> int:
    least, most = _LIMITS[name]
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name} is a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, not more")
    return int(value)


def _make(recipe: Recipe, workers: int, env_id: str, dataset_id: str, target: Path, quiet: bool) -> None:
    """Make the missing shards, write them as a dataset into a private store, and put it into its place."""
    folder = target.with_name(f".collecting-{target.name}-{recipe.fingerprint()}")
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, where a folder for shards is expected: move it away")
    missing = sum(recipe.shard_steps(i) for i in range(recipe.shards) if not shard_path(folder, i).exists())
    size = recipe.steps * recipe.BYTES_PER_STEP
    needed = missing * recipe.BYTES_PER_STEP + size
    minari_store.need_room(target.parent, needed, f"collecting {recipe.steps:,} steps")
    if missing:
        recipe.prepare(folder, quiet)
    make_shards(recipe, folder, min(workers, recipe.shards), f"{env_id}: {recipe.steps:,} steps in shards", quiet)
    store = minari_store.new_folder(target)
    try:
        minari_store.need_room(store, size, f"writing {dataset_id}")
        new = assemble.assemble(recipe, folder, env_id, dataset_id, store)
        minari_store.put_namespaces(store, target.parents[dataset_id.count("/")])
        minari_store.put(new, target)
    finally:
        minari_store.remove(store)
    remove_shards(recipe, folder)


@dataclass(frozen=True)
class _Arguments:
    """Collect a task's own data and store it as a local Minari dataset."""

    env: str = "maze2d-large"
    """Environment id, with or without its version."""
    layout: Path | None = None
    """A text file with a maze of your own ('#' wall, 'O' free, 'G' goal), instead of --env."""
    steps: int | None = None
    """Number of steps; by default D4RL's own for its mazes (1, 2 and 4 million for umaze, medium and large)."""
    workers: int | None = None
    """Number of processes; by default one for each core."""
    seed: int = 0
    """Same seed, same bytes."""
    dataset_id: str | None = None
    """Minari id; by default the task's data id after 'dfplan/'."""
    overwrite: bool = False
    """Replace an existing dataset of that id."""
    quiet: bool = False
    """No progress bar."""
    quick: bool = False
    """At most 200,000 steps, for a first look."""


@command.with_arguments(
    _Arguments, prog="python -m dfplan.envs.collect", interrupted="the same command goes on from the finished shards"
)
def main(arguments: _Arguments) -> None:
    """Collect what the command line asks for, and print the dataset's id."""
    print(collect(**vars(arguments)))


if __name__ == "__main__":
    sys.exit(main())
