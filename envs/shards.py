"""Collections of data in resumable pieces: several processes, whole files, the same bytes after any interruption.

A recipe says what is collected. Its steps are divided into shards, independent of each other; each has a seed of its own and
is written whole or not at all, so that the same recipe gives the same bytes whatever the number of processes and
interruptions.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from dfplan.whole_files import remove_partial_files, write_whole
from dfplan.worker_processes import as_they_end, worker_processes

Arrays = dict[str, np.ndarray]
"""Of a shard of n steps in E episodes: 'actions' (n, A), 'rewards', 'terminations' and 'truncations' (n,), and with n + E
rows, one more in each episode, 'observations' (or 'observations/KEY' for each entry of a Dict) and any 'infos/KEY'."""


@dataclass(frozen=True)
class About:
    """What a dataset says of itself."""

    algorithm: str
    """What acted."""
    source: str
    """Address of the recipe's origin."""
    description: str
    """A few sentences."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the environment that it names."""


class Recipe(ABC):
    """What the collected bytes depend on, apart from the versions of packages: the fields of a frozen dataclass.

    Its values are strings and numbers, so that a process is given it as JSON.
    """

    SHARD_STEPS: ClassVar[int]
    """Steps of a shard, but for the last, which takes the remainder."""
    BYTES_PER_STEP: ClassVar[int]
    """Of a shard and of a dataset, generously."""
    ALGORITHM: ClassVar[str]
    """What acts."""
    SOURCE: ClassVar[str]
    """Address of the recipe's origin."""
    PACKAGES: ClassVar[tuple[str, ...]] = ("dfplan", "mujoco", "numpy")
    """Whose versions the bytes depend on."""
    steps: int
    seed: int

    @abstractmethod
    def collect(self, index: int, folder: Path) -> Arrays:
        """The arrays of one shard, a function of the recipe, the index and what `prepare` left for the folder."""

    @abstractmethod
    def description(self, env_id: str) -> str:
        """A few sentences on the dataset of an environment."""

    def about(self, env_id: str) -> About:
        """What the dataset of an environment says of itself."""
        return About(self.ALGORITHM, self.SOURCE, self.description(env_id))

    def prepare(self, folder: Path, quiet: bool) -> None:
        """Make the folder of the shards, and what they need, such as a trained actor; go on where that was interrupted.

        Args:
            folder: Where the shards will be; nothing is kept there but them.
            quiet: No progress bar.
        """
        folder.mkdir(exist_ok=True)

    def difference(self, name: str, found: Any) -> str:
        """Of a dataset that was made by another value of a field: how it differs, as in '3,000 steps instead of 5,000'."""
        expected = getattr(self, name)
        if name == "steps":
            return f"{grouped(found)} steps instead of {grouped(expected)}"
        return f"{name.replace('_', ' ')} {found} instead of {expected}"

    def changed(self, steps: int, seed: int = 0) -> Self:
        """The same recipe with another number of steps and another seed."""
        return replace(self, steps=steps, seed=seed)  # type: ignore[type-var]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields and their values."""
        return asdict(self)  # type: ignore[call-overload]

    @property
    def versions(self) -> dict[str, str]:
        """Of the packages that the bytes depend on."""
        return {package: version(package) for package in self.PACKAGES}

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.steps // self.SHARD_STEPS)

    def shard_steps(self, index: int) -> int:
        """Steps of one shard."""
        return min(self.SHARD_STEPS, self.steps - index * self.SHARD_STEPS)

    def shard_seed(self, index: int) -> np.random.SeedSequence:
        """The seed of one shard."""
        return np.random.SeedSequence(self.seed).spawn(self.shards)[index]

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits over recipe and versions, so that unlike shards never meet in one folder."""
        parts = [type(self).__qualname__, self.fields, self.SHARD_STEPS, self.versions]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Scripted(Recipe):
    """Whole episodes of a script with noise on its actions."""

    SHARD_STEPS: ClassVar[int] = 5_000

    env_id: str
    """The environment."""
    noise: float
    """Largest standard deviation of the noise; each episode has one of its own, uniform from 0."""
    steps: int
    """Number of steps to collect."""
    seed: int
    """Of episodes and noise."""


def grouped(number: object) -> str:
    """A number with its digits in groups of three, and anything else as it is written in Python."""
    return f"{number:,}" if isinstance(number, int) else repr(number)


class Recorder:
    """Collects a shard's arrays step by step, and cuts the last episode where the shard is full."""

    def __init__(self, steps: int):
        self.left = steps
        self._rows: dict[str, list[Any]] = {}

    def begin(self, observation: Any) -> None:
        """Record the first observation of an episode, an array or a mapping of arrays. Pictures stay uint8."""
        for key, part in observation.items() if isinstance(observation, Mapping) else [("", observation)]:
            row = np.asarray(part)
            row = row if row.dtype == np.uint8 else row.astype(np.float32)
            self._add(f"observations/{key}" if key else "observations", row)

    def step(self, action: Any, observation: Any, reward: float, terminated: bool, truncated: bool) -> bool:
        """Record an action and what it led to; whether the episode goes on."""
        self.left -= 1
        truncated = bool(truncated or (self.left == 0 and not terminated))
        self._add("actions", np.asarray(action, dtype=np.float32))
        self._add("rewards", np.float32(reward))
        self._add("terminations", bool(terminated))
        self._add("truncations", truncated)
        self.begin(observation)
        return not (terminated or truncated)

    def play(self, env: Any, seed: int | None, act: Callable[[Any], Any]) -> None:
        """Record one episode of an environment, from a reset with this seed on; `act` gives the action for an observation."""
        observation, _ = env.reset(seed=seed)
        self.begin(observation)
        goes_on = True
        while goes_on:
            action = act(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            goes_on = self.step(action, observation, float(reward), terminated, truncated)

    def arrays(self) -> Arrays:
        """What was recorded."""
        return {name: np.array(rows) for name, rows in self._rows.items()}

    def _add(self, name: str, row: Any) -> None:
        self._rows.setdefault(name, []).append(row)


def record(env: Any, steps: int, seed: np.random.SeedSequence, actor: Callable[[], Callable[[Any], Any]]) -> Arrays:
    """So many steps of an environment, one episode after another from a reset with the seed on; the last one is cut.

    `actor` gives, for each episode, the function from an observation to an action. The environment is closed.
    """
    recorder, start = Recorder(steps), int(seed.generate_state(1)[0])
    recorder.play(env, start, actor())
    while recorder.left:
        recorder.play(env, None, actor())
    env.close()
    return recorder.arrays()


def episodes(arrays: Arrays) -> Iterator[dict[str, Any]]:
    """The episodes of a shard, with 'observations' an array or a dict of arrays, and 'infos' a dict of arrays."""
    ends = np.flatnonzero(arrays["terminations"] | arrays["truncations"]) + 1
    for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        episode: dict[str, Any] = {"infos": {}}
        for name, array in arrays.items():
            kind, _, key = name.partition("/")
            longer = kind in ("observations", "infos")
            part = array[begin + number : end + number + 1] if longer else array[begin:end]
            if key:
                episode.setdefault(kind, {})[key] = part
            else:
                episode[kind] = part
        yield episode


def shard_path(folder: Path, index: int) -> Path:
    """The file of one shard."""
    return folder / f"shard-{index:05d}.npz"


def read_shard(folder: Path, index: int) -> Arrays:
    """The arrays of a shard, from disk."""
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
    """Make one shard and write its file, unless the collection that it belongs to, process `parent`, has ended meanwhile."""
    arrays, file = recipe.collect(index, folder), io.BytesIO()
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
    try:
        arrays = read_shard(folder, index)
        ends = arrays["terminations"] | arrays["truncations"]
        rows = {name: len(array) for name, array in arrays.items()}
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile):
        return False
    longer = steps + int(ends.sum())
    expected = {name: longer if name.startswith(("observations", "infos/")) else steps for name in arrays}
    return rows == expected and {"actions", "rewards"} <= rows.keys() and any(n == longer for n in rows.values())
