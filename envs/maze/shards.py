"""Drive the expert through a maze by D4RL's recipe, in resumable pieces.

The recipe (D4RL's `generate_maze2d_datasets.py`, without noise): the waypoint expert drives to a random target, a
free cell's center +-0.1; when the target is reached, or the episode length has passed, a new target is drawn and the
particle drives on from where it is. The environment is never reset between targets. Rewards are the sparse ones of the
maze's own fixed goal, computed from the observation they stand beside, as in D4RL's relabeled files.

Two differences from D4RL: the data is made of independent shards, one long episode each, so that several processes can
make it and an interrupted collection can go on; and the first observation on the way to a new target is the current one
(D4RL writes the one before it a second time).

Every shard has a seed of its own and is written whole or not at all, so that the same recipe gives the same bytes
whatever the number of processes and interruptions.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from dfplan.envs.maze.layouts import Layout, parse
from dfplan.whole_files import remove_partial_files, write_whole
from dfplan.worker_processes import as_they_end, worker_processes

SHARD_STEPS = 20_000
BYTES_PER_STEP = 40
"""Of a shard, generously."""


@dataclass(frozen=True)
class Recipe:
    """What the collected bytes depend on, apart from the versions of MuJoCo and NumPy."""

    layout: str
    """The maze, as text."""
    episode_steps: int
    """Steps after which a target is given up."""
    steps: int
    """Number of steps to collect, over all shards."""
    seed: int
    """Each shard has a seed of its own, which follows from this one and its index."""

    @property
    def shards(self) -> int:
        """Number of shards: all of `SHARD_STEPS` steps, but for the last, which takes the remainder."""
        return -(-self.steps // SHARD_STEPS)

    def shard_steps(self, index: int) -> int:
        """Steps of one shard."""
        return min(SHARD_STEPS, self.steps - index * SHARD_STEPS)

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits over recipe and versions, so that unlike shards never meet in one folder."""
        versions = [version(package) for package in ("dfplan", "mujoco", "numpy")]
        return hashlib.sha256(json.dumps([asdict(self), SHARD_STEPS, versions]).encode()).hexdigest()[:12]


def drive(layout: Layout, episode_steps: int, steps: int, seed: np.random.SeedSequence) -> dict[str, np.ndarray]:
    """Drive the expert for `steps` steps without a reset.

    Returns float32 arrays: observations (steps + 1, 4), actions (steps, 2), rewards (steps,), goals (steps + 1, 2).
    The action at t was chosen at, and executed from, the observation at t, on the way to the goal at t.
    """
    # MuJoCo is loaded by the processes that drive, not by the one that watches them.
    from dfplan.envs.maze.env import GOAL_RADIUS
    from dfplan.envs.maze.expert import Driver
    from dfplan.envs.maze.physics import PointMass

    rng = np.random.default_rng(seed)
    observations = np.empty((steps + 1, 4), dtype=np.float32)
    actions = np.empty((steps, 2), dtype=np.float32)
    goals = np.empty((steps + 1, 2), dtype=np.float32)
    physics, driver = PointMass(layout), Driver(layout, rng)
    cell, goal = layout.random_place(rng)
    _, (x, y) = layout.random_place(rng)
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
        if reached or age > episode_steps:
            cell, goal = layout.random_place(rng)
            age = 0
    observations[steps] = x, y, vx, vy
    goals[steps] = goal
    distance = np.linalg.norm(observations[:-1, :2] - layout.goal, axis=1)
    rewards = (distance <= GOAL_RADIUS).astype(np.float32)
    return {"observations": observations, "actions": actions, "rewards": rewards, "goals": goals}


def shard_path(folder: Path, index: int) -> Path:
    """The file of one shard."""
    return folder / f"shard-{index:05d}.npz"


def read_shard(folder: Path, index: int) -> dict[str, np.ndarray]:
    """The arrays of `drive`, from disk."""
    with np.load(shard_path(folder, index)) as shard:
        return {name: shard[name] for name in shard.files}


def make_shards(recipe: Recipe, folder: Path, workers: int, title: str, quiet: bool = False) -> None:
    """Make the missing shards of a recipe in a folder, by so many processes, with a progress bar on stderr.

    The processes end with this call, also when it is interrupted, and soon after this process is killed. Shards that are
    damaged are made again. Raises ChildProcessError, with one sentence, if a process fails.
    """
    from joblib import delayed

    remove_damaged(recipe, folder)
    missing = [index for index in range(recipe.shards) if not shard_path(folder, index).exists()]
    if not missing:
        return
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with worker_processes(), Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task(title, total=recipe.shards, completed=recipe.shards - len(missing))
        jobs = (delayed(make_shard)(recipe, folder, index, os.getpid()) for index in missing)
        try:
            for _ in as_they_end(jobs, min(workers, len(missing))):
                progress.advance(bar)
        except Exception as error:  # what a worker raised, or that it died
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ChildProcessError(f"{title}: a collecting process failed ({reason})") from error


def make_shard(recipe: Recipe, folder: Path, index: int, parent: int) -> None:
    """Drive one shard and write its file, unless the collection that it belongs to, process `parent`, has ended meanwhile."""
    seed = np.random.SeedSequence(recipe.seed).spawn(recipe.shards)[index]
    arrays, file = drive(parse(recipe.layout), recipe.episode_steps, recipe.shard_steps(index), seed), io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    if parent in (os.getpid(), os.getppid()):
        write_whole(shard_path(folder, index), file.getvalue())


def remove_damaged(recipe: Recipe, folder: Path) -> None:
    """Remove shards that are not whole, and what killed processes left of others."""
    for index in range(recipe.shards):
        path = shard_path(folder, index)
        remove_partial_files(path)
        if path.exists() and not _is_whole(recipe, folder, index):
            path.unlink()


def remove_shards(recipe: Recipe, folder: Path) -> None:
    """Remove a recipe's shards, and their folder if nothing else is in it."""
    for index in range(recipe.shards):
        shard_path(folder, index).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else is in it
        folder.rmdir()


def _is_whole(recipe: Recipe, folder: Path, index: int) -> bool:
    steps = recipe.shard_steps(index)
    shapes = {"observations": (steps + 1, 4), "actions": (steps, 2), "rewards": (steps,), "goals": (steps + 1, 2)}
    try:
        arrays = read_shard(folder, index)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return False
    return {name: array.shape for name, array in arrays.items()} == shapes
