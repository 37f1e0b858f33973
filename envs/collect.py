"""Collect a maze's data by D4RL's recipe (see ``dfplan.envs.shards``) and store it as a local Minari dataset.

    python -m dfplan.envs.collect --env maze2d-large

Finished shards wait in a hidden folder beside the dataset; after an interruption the same command goes on from them.
The dataset appears by one rename, when all of it is there.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from dfplan.envs.expert import distance_field
from dfplan.envs.layouts import Layout, parse
from dfplan.envs.shards import SHARD_STEPS, Recipe, make_shards, read_shard
from dfplan.envs.tasks import CUSTOM_ID, TASKS, unknown

DEFAULT_STEPS = {"umaze": 1_000_000, "medium": 2_000_000, "large": 4_000_000}
"""D4RL's own sizes; any other maze gets a million."""

_SOURCE = "https://github.com/Farama-Foundation/D4RL/blob/master/scripts/generation/generate_maze2d_datasets.py"


def collect(
    env: str = "maze2d-large",
    layout: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    dataset_id: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> str:
    """Collect a maze's data and return its Minari dataset id.

    Each shard is one episode of the dataset (terminated nowhere, truncated at its end), with the expert's target at
    every observation in ``infos["goal"]``; arrays are float32.

    Args:
        env: an environment id, or one without its version ('maze2d-large'). All tasks in one maze share its data.
        layout: a maze of the user's own, as text, instead of ``env``; then ``dataset_id`` must be given.
        steps: how many; None is D4RL's own number (1, 2 and 4 million for umaze, medium and large).
        seed: same seed, same bytes.
        workers: processes; None is one for each core. The data does not depend on it.
        dataset_id: None is the maze's id after 'dfplan/', as in 'dfplan/maze2d-large-v1'.
        overwrite: replace a dataset of that id. Otherwise an existing one is left alone, which a line on stderr says.
        quiet: no progress bar.

    Raises KeyError for an unknown environment, ValueError for a bad number, layout or dataset id, and RuntimeError if a
    collecting process fails.
    """
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    spec, maze = _maze(env, layout)
    assert spec.max_episode_steps is not None
    dataset_id = dataset_id or (f"dfplan/{spec.id}" if layout is None else None)
    if dataset_id is None:
        raise ValueError("a dataset id is needed for a layout of your own, such as 'dfplan/maze2d-mine-v1'")
    parse_dataset_id(dataset_id)
    steps = _default_steps(spec) if steps is None else steps
    workers = _cores() if workers is None else workers
    for name, value, least in (("steps", steps, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    target = get_dataset_path(dataset_id)
    if (target / "data").exists() and not overwrite:
        print(f"{dataset_id} is already there, in {target}; --overwrite would collect it again", file=sys.stderr)
        return dataset_id

    recipe = Recipe(str(maze), spec.max_episode_steps, steps, seed)
    folder = target.parent / f".collecting-{target.name}-{recipe.fingerprint()}"
    folder.mkdir(parents=True, exist_ok=True)
    make_shards(recipe, folder, min(workers, recipe.shards), f"{spec.id}: {steps:,} steps in shards", quiet)
    _assemble(recipe, spec, folder, dataset_id, target)
    shutil.rmtree(folder)
    return dataset_id


def _maze(env: str, layout: str | None) -> tuple[EnvSpec, Layout]:
    """The environment that stands for the data, and its maze, in which every cell must be reachable."""
    if layout is None:
        task = next((TASKS[name] for name in (env, f"{env}-v1", f"{env}-v0") if name in TASKS), None)
        if task is None:
            raise unknown("environment", env, TASKS)
        spec, maze = gymnasium.spec(task.data_id), task.layout
    else:
        maze = parse(layout)
        made = gymnasium.make(CUSTOM_ID, layout=str(maze))
        assert made.spec is not None
        spec = made.spec
    first = maze.free_cells[0].tolist()
    unreachable = np.argwhere((distance_field(maze, (first[0], first[1])) < 0) & ~maze.walls)
    if len(unreachable):
        raise ValueError(f"no way leads from cell {first} of the maze to cell {unreachable[0].tolist()}")
    return spec, maze


def _default_steps(spec: EnvSpec) -> int:
    return DEFAULT_STEPS.get(TASKS[spec.id].maze.removeprefix("eval-") if spec.id in TASKS else "", 1_000_000)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _assemble(recipe: Recipe, spec: EnvSpec, folder: Path, dataset_id: str, target: Path) -> None:
    """Write the shards as one Minari dataset in the hidden folder, then rename it into place."""
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage
    from minari.namespace import create_namespace, list_local_namespaces

    def episodes() -> Iterator[EpisodeBuffer]:
        for index in range(recipe.shards):
            arrays = read_shard(folder, index)
            steps = recipe.shard_steps(index)
            yield EpisodeBuffer(
                id=index,
                observations=arrays["observations"],
                actions=arrays["actions"],
                rewards=arrays["rewards"],
                terminations=np.zeros(steps, dtype=bool),
                truncations=np.arange(steps) == steps - 1,
                infos={"goal": arrays["goals"]},
            )

    new, old = folder / "new", folder / "old"
    shutil.rmtree(new, ignore_errors=True)
    (new / "data").mkdir(parents=True)
    state_space, action_space = Box(-np.inf, np.inf, (4,), np.float32), Box(-1.0, 1.0, (2,), np.float32)
    storage = MinariStorage.new(new / "data", state_space, action_space, env_spec=spec)
    versions = {package: version(package) for package in ("dfplan", "mujoco", "numpy")}
    goal = parse(recipe.layout).goal.tolist()
    storage.update_metadata(
        {
            "dataset_id": dataset_id,
            "minari_version": version("minari"),
            "algorithm_name": "waypoint expert",
            "author": {"The dfplan developers"},
            "code_permalink": _SOURCE,
            "description": f"Data of {spec.id}, collected by D4RL's recipe: a waypoint expert drives to random targets "
            f"with no reset between them. The rewards are sparse and belong to the fixed goal {goal}.",
            "collect_recipe": {**asdict(recipe), "shard_steps": SHARD_STEPS, "versions": versions},
        }
    )
    storage.update_episodes(episodes())
    namespace = dataset_id.rpartition("/")[0]
    if namespace and namespace not in list_local_namespaces():
        create_namespace(namespace)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)


@dataclass(frozen=True)
class _Arguments:
    """Collect a maze's data by D4RL's recipe and store it as a local Minari dataset."""

    env: str = "maze2d-large"
    """Environment id, with or without its version."""
    layout: Path | None = None
    """A text file with a maze of your own ('#' wall, 'O' free, 'G' goal), instead of --env."""
    steps: int | None = None
    """Number of steps; by default D4RL's own (1, 2 and 4 million for umaze, medium and large)."""
    workers: int | None = None
    """Number of processes; by default one for each core."""
    seed: int = 0
    """Same seed, same bytes."""
    dataset_id: str | None = None
    """Minari id; by default the maze's id after 'dfplan/'."""
    overwrite: bool = False
    """Replace an existing dataset of that id."""
    quiet: bool = False
    """No progress bar."""


def main() -> int:
    import tyro

    arguments = tyro.cli(_Arguments, prog="python -m dfplan.envs.collect")
    try:
        layout = None if arguments.layout is None else arguments.layout.read_text(encoding="utf-8")
        print(collect(**{**vars(arguments), "layout": layout}))
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the finished shards", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
