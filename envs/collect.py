"""Collect a maze's data by D4RL's recipe and store it as a Minari dataset.

    python -m dfplan.envs.collect --env maze2d-large

The recipe (D4RL's ``generate_maze2d_datasets.py``, without noise): a particle is driven by the waypoint expert to a
random target, a free cell's centre +-0.1; when the target is reached, or the episode length has passed, a new target is
drawn and the particle drives on from where it is. The environment is never reset between targets. Rewards are those of
the maze's own fixed goal, computed from the observation they stand beside, as in D4RL's relabelled files.

Where it differs from D4RL: the data is made of independent shards of ``SHARD_STEPS`` steps, one long episode each, so that it can be
made by several processes and resumed, and comes out the same bytes whatever their number; and the observation after a
new target is the current one (D4RL repeats the one before it there).

Finished shards wait in a hidden folder beside the dataset, each written whole or not at all; the same command goes on
from them after an interruption. The dataset appears, by one rename, when all are there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dfplan.envs.tasks import TASKS, Task, unknown

SHARD_STEPS = 20_000
DEFAULT_STEPS = {"umaze": 1_000_000, "medium": 2_000_000, "large": 4_000_000, "open": 1_000_000}
_SOURCE = "https://github.com/Farama-Foundation/D4RL/blob/master/scripts/generation/generate_maze2d_datasets.py"


@dataclass(frozen=True)
class Recipe:
    """Everything the collected bytes depend on, apart from the versions of this package, MuJoCo and NumPy."""

    env_id: str
    steps: int
    seed: int

    @property
    def shards(self) -> int:
        return -(-self.steps // SHARD_STEPS)

    def shard_steps(self, index: int) -> int:
        """Steps of one shard; the last one takes the remainder."""
        return min(SHARD_STEPS, self.steps - index * SHARD_STEPS)


def drive(task: Task, steps: int, seed: np.random.SeedSequence) -> dict[str, np.ndarray]:
    """Drive the expert for ``steps`` steps without a reset.

    Returns float32 arrays: observations (steps + 1, 4), actions (steps, 2), rewards (steps,), goals (steps + 1, 2);
    the action at t was chosen at, and executed from, the observation at t, on the way to the goal at t.
    """
    from dfplan.envs.expert import Driver
    from dfplan.envs.maze2d import GOAL_RADIUS
    from dfplan.envs.physics import PointMass

    rng = np.random.default_rng(seed)
    layout, limit = task.layout, task.max_episode_steps
    cells = layout.free_cells.tolist()
    observations = np.empty((steps + 1, 4), dtype=np.float32)
    actions = np.empty((steps, 2), dtype=np.float32)
    goals = np.empty((steps + 1, 2), dtype=np.float32)

    def random_cell() -> tuple[tuple[int, int], tuple[float, float]]:
        i, j = cells[int(rng.integers(len(cells)))]
        dx, dy = rng.uniform(-0.1, 0.1, size=2).tolist()
        return (i, j), (i + dx, j + dy)

    physics, driver = PointMass(layout), Driver(layout, rng)
    cell, goal = random_cell()
    _, (x, y) = random_cell()
    vx, vy = rng.normal(0.0, 0.1, size=2).tolist()
    physics.set_state(x, y, vx, vy)
    age = 0
    for t in range(steps):
        ax, ay, reached = driver.act(x, y, vx, vy, cell)
        observations[t] = x, y, vx, vy
        actions[t] = ax, ay
        goals[t] = goal
        x, y, vx, vy = physics.step(ax, ay)
        age += 1
        if reached or age > limit:
            cell, goal = random_cell()
            age = 0
    observations[steps] = x, y, vx, vy
    goals[steps] = goal
    distance = np.linalg.norm(observations[:-1, :2] - layout.goal, axis=1)
    rewards = (distance <= GOAL_RADIUS).astype(np.float32)
    return {"observations": observations, "actions": actions, "rewards": rewards, "goals": goals}


def work(recipe: Recipe, folder: Path, worker: int, workers: int) -> None:
    """Make every missing shard of one worker's share; stop when the parent process is gone."""
    parent = os.getppid()
    seeds = np.random.SeedSequence(recipe.seed).spawn(recipe.shards)
    for index in range(worker, recipe.shards, workers):
        path = _shard_path(folder, index)
        if path.exists():
            continue
        arrays = drive(TASKS[recipe.env_id], recipe.shard_steps(index), seeds[index])
        temporary = path.with_suffix(f".{os.getpid()}.part")
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
        if os.getppid() != parent:
            return


def collect(
    env: str = "maze2d-large",
    steps: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    dataset_id: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> str:
    """Collect a maze's data and return its Minari dataset id.

    Args:
        env: an environment id, or one without its version ('maze2d-large'). All tasks in one maze share the data.
        steps: how many; None is D4RL's own number (1, 2 and 4 million for umaze, medium and large).
        seed: same seed, same bytes.
        workers: processes; None is one for each core.
        dataset_id: None is 'dfplan/<maze's id>', as 'dfplan/maze2d-large-v1'.
        overwrite: replace a dataset of that id; otherwise an existing one is left alone and its id returned.
        quiet: no progress bar.

    Raises KeyError for an unknown environment, ValueError for a bad number, RuntimeError if a worker process fails.
    """
    from minari import MinariDataset  # noqa: F401  (fails early, before an hour of work, where minari is missing)
    from minari.storage.datasets_root_dir import get_dataset_path

    task = find_task(env)
    recipe = Recipe(task.data_id, steps or DEFAULT_STEPS[task.maze.removeprefix("eval-")], seed)
    workers = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) if workers is None else workers
    if recipe.steps < 1 or workers < 1 or seed < 0:
        raise ValueError(f"steps and workers must be at least 1 and the seed at least 0, not {steps}, {workers}, {seed}")
    dataset_id = dataset_id or f"dfplan/{task.data_id}"
    target = get_dataset_path(dataset_id)
    if (target / "data").exists() and not overwrite:
        print(f"{dataset_id} is already there, at {target}; use --overwrite to collect it again", file=sys.stderr)
        return dataset_id
    folder = target.parent / f".{target.name}.collecting" / f"seed{seed}-steps{recipe.steps}"
    folder.mkdir(parents=True, exist_ok=True)
    _make_shards(recipe, folder, min(workers, recipe.shards), quiet)
    _assemble(recipe, folder, dataset_id, target)
    shutil.rmtree(folder.parent)
    return dataset_id


def find_task(env: str) -> Task:
    """The task of an id with or without its version; KeyError with the nearest ids."""
    for candidate in (env, f"{env}-v1", f"{env}-v0"):
        if candidate in TASKS:
            return TASKS[candidate]
    raise unknown("environment", env, TASKS)


def _shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.npz"


def _make_shards(recipe: Recipe, folder: Path, workers: int, quiet: bool) -> None:
    """Run the workers as processes of their own (no fork of the caller, whatever it has loaded) and watch the folder."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    def done() -> int:
        return len(list(folder.glob("shard-*.npz")))

    for leftover in folder.glob("*.part"):
        leftover.unlink()
    if done() == recipe.shards:
        return
    job = json.dumps([asdict(recipe), str(folder)])
    program = "import sys; from dfplan.envs.collect import _worker_main; _worker_main(*sys.argv[1:])"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, job, str(worker), str(workers)], env=environment)
        for worker in range(workers)
    ]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("shards"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    try:
        with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
            bar = progress.add_task(f"{recipe.env_id}, {recipe.steps:,} steps", total=recipe.shards, completed=done())
            while any(process.poll() is None for process in processes):
                if any(process.poll() not in (None, 0) for process in processes):
                    break
                time.sleep(0.1)
                progress.update(bar, completed=done())
            progress.update(bar, completed=done())
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    if done() != recipe.shards:
        codes = [process.returncode for process in processes]
        raise RuntimeError(f"collecting {recipe.env_id} failed: its processes ended with {codes}; see the messages above")


def _worker_main(job: str, worker: str, workers: str) -> None:
    recipe, folder = json.loads(job)
    work(Recipe(**recipe), Path(folder), int(worker), int(workers))


def _assemble(recipe: Recipe, folder: Path, dataset_id: str, target: Path) -> None:
    """Write the shards as one Minari dataset in a hidden folder, then rename it into place."""
    import gymnasium
    import minari
    import mujoco
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage
    from minari.namespace import create_namespace, list_local_namespaces

    import dfplan

    def episodes() -> Iterator[EpisodeBuffer]:
        for index in range(recipe.shards):
            with np.load(_shard_path(folder, index)) as shard:
                arrays = {name: shard[name] for name in shard.files}
            steps = len(arrays["actions"])
            yield EpisodeBuffer(
                id=index,
                observations=arrays["observations"],
                actions=arrays["actions"],
                rewards=arrays["rewards"],
                terminations=np.zeros(steps, dtype=bool),
                truncations=np.arange(steps) == steps - 1,
                infos={"goal": arrays["goals"]},
            )

    spec = gymnasium.spec(recipe.env_id)
    partial = folder.parent / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "data").mkdir(parents=True)
    storage = MinariStorage.new(
        partial / "data",
        observation_space=Box(-np.inf, np.inf, (4,), np.float32),
        action_space=Box(-1.0, 1.0, (2,), np.float32),
        env_spec=spec,
    )
    task = TASKS[recipe.env_id]
    storage.update_metadata(
        {
            "dataset_id": dataset_id,
            "minari_version": minari.__version__,
            "algorithm_name": "waypoint expert",
            "author": {"The dfplan developers"},
            "code_permalink": _SOURCE,
            "description": f"D4RL's {recipe.env_id} data, collected anew by its recipe: a waypoint expert drives to "
            f"random targets without a reset between them; rewards belong to the fixed goal {task.layout.goal.tolist()}.",
            "collect_recipe": {
                **asdict(recipe),
                "shard_steps": SHARD_STEPS,
                "dfplan": dfplan.__version__,
                "mujoco": mujoco.__version__,
                "numpy": np.__version__,
            },
        }
    )
    storage.update_episodes(episodes())
    namespace = "/".join(dataset_id.split("/")[:-1])
    if namespace and namespace not in list_local_namespaces():
        create_namespace(namespace)
    if target.exists():
        shutil.rmtree(target)
    os.replace(partial, target)


@dataclass(frozen=True)
class _Arguments:
    """Collect a maze's data by D4RL's recipe and store it as a local Minari dataset."""

    env: str = "maze2d-large"
    """Environment id, with or without its version."""
    steps: int | None = None
    """Number of steps; by default D4RL's own (1, 2 and 4 million for umaze, medium and large)."""
    workers: int | None = None
    """Number of processes; by default one for each core."""
    seed: int = 0
    """Same seed, same bytes."""
    dataset_id: str | None = None
    """Minari id; by default 'dfplan/<the maze's id>'."""
    overwrite: bool = False
    """Replace an existing dataset of that id."""
    quiet: bool = False
    """No progress bar."""


def main() -> int:
    import tyro

    arguments = tyro.cli(_Arguments, description=_Arguments.__doc__)
    try:
        print(collect(**asdict(arguments)))
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the finished shards", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
