"""Train the weights of an agent: collect the data if missing, train, and write one weights file.

    python benchmarks/train.py --env maze2d-large
    python benchmarks/train.py --env all --recipe all
    python benchmarks/train.py --data my-robot.npz --recipe bc

Ctrl-C or a kill at any moment loses little: the same command goes on from the last checkpoint and, on a CPU with the same
number of threads, ends with the same weights bit for bit.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dfplan import command
from dfplan.benchmarks import training_run
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import suite

LARGEST_SEED = 2**31 - 1
"""What all the random generators that are seeded take."""


@dataclass(frozen=True)
class Arguments:
    """What to train, on what, and where."""

    env: str | None = None
    """Environment in which it is scored, with or without its version, or a suite of them ('all': the three mazes), whose own
    data are used without --data. Without --env and --data: maze2d-large."""
    recipe: str = "default"
    """What to train: 'default', 'paper', a baseline such as 'diffuser' or 'iql', or 'all' of them."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    steps: int | None = None
    """Optimizer steps of the whole run instead of the recipe's own number. They are set at the start of a run: its learning
    rate ends at its last step."""
    data: str | None = None
    """Minari id, D4RL HDF5 file, npz file or 'd4rl:NAME'; without it the environment's own data, collected now if missing."""
    run_dir: Path | None = None
    """Folder of the run, empty or not there yet, or one to be continued; without it runs/WEIGHTS-seedN."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks compute."""
    devices: int = 1
    """Number of devices; on a CPU, of processes. Each sees a batch of its own."""
    threads: int = 1
    """CPU threads of each process. One is best for these small networks: use further cores for further runs."""
    quiet: bool = False
    """Show nothing."""


def prepare(arguments: Arguments) -> None:
    """Set the number of threads. ValueError for an option that no recipe can be trained with on this machine."""
    for name in ("threads", "devices", "steps"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if not 0 <= arguments.seed <= LARGEST_SEED:
        raise ValueError(f"--seed must lie in 0..{LARGEST_SEED}, not {arguments.seed}")
    import torch  # late: see dfplan.command

    there = torch.cuda.device_count()
    if arguments.accelerator == "cuda" and arguments.devices > there:
        asked = f"{arguments.devices} CUDA devices are asked for"
        raise ValueError(f"--accelerator cuda: {asked}, and torch finds {there or 'none'} here")
    torch.set_num_threads(arguments.threads)


def each(arguments: Arguments) -> list[Arguments]:
    """One for each task and recipe: 'all' stands for every one. ValueError if they would share a folder."""
    env = "maze2d-large" if arguments.env is None and arguments.data is None else arguments.env
    family = None if env is None else suite.called(env)
    envs = [env] if family is None else family.trained
    names = [*RECIPES, *ONLINE] if arguments.recipe == "all" else [arguments.recipe]
    if len(envs) * len(names) > 1 and arguments.run_dir is not None:
        raise ValueError("several recipes cannot share one --run-dir: leave it out, and each has its folder in runs/")
    return [replace(arguments, env=env, recipe=name) for env in envs for name in names]


@command.with_arguments(Arguments, __doc__, interrupted="the same command goes on from what is done")
def main(arguments: Arguments) -> None:
    """Train what the command line asks for."""
    prepare(arguments)
    for one in each(arguments):
        path = training_run.train(**vars(one))
        if not arguments.quiet:
            print(f"weights written to {path}")


if __name__ == "__main__":
    sys.exit(main())
