"""Write finished shards as one Minari dataset, in a process of its own.

On a full disk HDF5 can crash the process that writes. Minari writes into the store that MINARI_DATASETS_PATH names: for
this process that is a private folder, out of which the finished dataset is renamed into its place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from dfplan.envs.maze.layouts import parse
from dfplan.envs.maze.shards import SHARD_STEPS, Recipe, read_shard

BYTES_PER_STEP = 50
"""Of a dataset, generously; 38 without HDF5's own."""

_SOURCE = "https://github.com/Farama-Foundation/D4RL/blob/master/scripts/generation/generate_maze2d_datasets.py"
_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # Ctrl-C: the one that waits decides
    "import sys; from dfplan.envs.assemble import write; write(sys.argv[1])"
)


def assemble(recipe: Recipe, shards: Path, env_id: str, dataset_id: str, store: Path) -> Path:
    """Write the shards in a folder as a dataset into an empty store, and return the dataset's folder.

    Raises OSError, with one sentence, if that fails.
    """
    job = {"recipe": asdict(recipe), "shards": str(shards), "env_id": env_id, "dataset_id": dataset_id}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(job | {"parent": os.getpid()})],
        env=os.environ | {"MINARI_DATASETS_PATH": str(store)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise OSError(f"{dataset_id} could not be written ({_reason(done)})")
    return store / dataset_id


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"the process that writes ended by {signal.Signals(-done.returncode).name}, which a full disk can cause"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process that writes ended with status {done.returncode}"


def write(job: str) -> None:
    """The process of `assemble`: its last line on stderr says why it failed."""
    order = json.loads(job)
    recipe = Recipe(**order["recipe"])
    try:
        _write(recipe, Path(order["shards"]), order["env_id"], order["dataset_id"], order["parent"])
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        print(reason, file=sys.stderr, flush=True)
        os._exit(1)  # at once: HDF5 would try again to write what it could not


def _write(recipe: Recipe, shards: Path, env_id: str, dataset_id: str, parent: int) -> None:
    import gymnasium
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    from dfplan.envs.registry import CUSTOM_ID

    def episodes() -> Iterator[EpisodeBuffer]:
        for index in range(recipe.shards):
            if os.getppid() != parent:
                sys.exit("interrupted")
            arrays = read_shard(shards, index)
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

    layout = parse(recipe.layout)
    env = gymnasium.make(env_id, layout=recipe.layout) if env_id == CUSTOM_ID else gymnasium.make(env_id)
    dataset = minari.create_dataset_from_buffers(
        dataset_id,
        episodes(),  # one at a time: a list of all would be the whole dataset in memory
        env=env,
        observation_space=Box(-np.inf, np.inf, (4,), np.float32),
        action_space=Box(-1.0, 1.0, (2,), np.float32),
        algorithm_name="waypoint expert",
        author="The dfplan developers",
        code_permalink=_SOURCE,
        description=f"Data of {env_id}, collected by D4RL's recipe: a waypoint expert drives to random targets with no "
        f"reset between them. The rewards are sparse and belong to the fixed goal {layout.goal.tolist()}.",
    )
    versions = {package: version(package) for package in ("dfplan", "mujoco", "numpy")}
    dataset.storage.update_metadata(
        {"collect_recipe": {**asdict(recipe), "shard_steps": SHARD_STEPS, "versions": versions}}
    )
