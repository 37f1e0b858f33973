"""Write finished shards as one Minari dataset, in a process of its own.

On a full disk HDF5 can crash the process that writes. Minari writes into the store that MINARI_DATASETS_PATH names: for
this process that is a private folder, out of which the finished dataset is renamed into its place.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dfplan.envs.shards import Recipe, episodes, read_shard

_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # Ctrl-C: the one that waits decides
    "import sys; from dfplan.envs.assemble import write; write(sys.argv[1])"
)


def assemble(recipe: Recipe, shards: Path, env_id: str, dataset_id: str, store: Path) -> Path:
    """Write the shards in a folder as a dataset into an empty store, and return the dataset's folder.

    Raises OSError, with one sentence, if that fails.
    """
    kind = f"{type(recipe).__module__}:{type(recipe).__qualname__}"
    job: dict[str, Any] = {"kind": kind, "recipe": recipe.fields, "shards": str(shards), "count": recipe.shards}
    job |= {"env_id": env_id, "dataset_id": dataset_id, "parent": os.getpid()}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(job)],
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
    module, _, name = order["kind"].partition(":")
    recipe = getattr(importlib.import_module(module), name)(**order["recipe"])
    try:
        _write(recipe, Path(order["shards"]), order["count"], order["env_id"], order["dataset_id"], order["parent"])
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        print(reason, file=sys.stderr, flush=True)
        os._exit(1)  # at once: HDF5 would try again to write what it could not


def _write(recipe: Recipe, shards: Path, count: int, env_id: str, dataset_id: str, parent: int) -> None:
    import minari
    from gymnasium.spaces import Box, Dict
    from minari.data_collector import EpisodeBuffer

    from dfplan.envs.registry import make

    def buffers() -> Iterator[EpisodeBuffer]:
        numbers = itertools.count()
        for index in range(count):
            if os.getppid() != parent:
                sys.exit("interrupted")
            for episode in episodes(read_shard(shards, index)):
                yield EpisodeBuffer(id=next(numbers), **episode)

    def box(array: np.ndarray) -> Box:
        if array.dtype == np.uint8:
            return Box(0, 255, array.shape[1:], np.uint8)
        return Box(-np.inf, np.inf, array.shape[1:], np.float32)

    first = next(episodes(read_shard(shards, 0)))
    seen = first["observations"]
    space = Dict({key: box(part) for key, part in seen.items()}) if isinstance(seen, dict) else box(seen)
    about = recipe.about(env_id)
    dataset = minari.create_dataset_from_buffers(
        dataset_id,
        buffers(),  # one at a time: a list of all would be the whole dataset in memory
        env=make(env_id, **about.options),
        observation_space=space,
        action_space=Box(-1.0, 1.0, first["actions"].shape[1:], np.float32),
        algorithm_name=about.algorithm,
        author="The dfplan developers",
        code_permalink=about.source,
        description=about.description,
    )
    dataset.storage.update_metadata(
        {"collect_recipe": {**recipe.fields, "shard_steps": recipe.SHARD_STEPS, "versions": recipe.versions}}
    )
