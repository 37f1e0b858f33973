"""Train the weights of an agent: collect the data if missing, train, and write one weights file.

    python benchmarks/train.py --env maze2d-large
    python benchmarks/train.py --env all --recipe all
    python benchmarks/train.py --data my-robot.npz --recipe bc

Ctrl-C or a kill at any moment loses little: the same command goes on from the last checkpoint and, on a CPU with the same
number of threads, ends with the same weights bit for bit.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dfplan import command
from dfplan.benchmarks import rows, training_run
from dfplan.benchmarks.provenance import hardware, versions
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.training_run import Run
from dfplan.envs.registry import find, short_name
from dfplan.names import unknown

ACCELERATORS = ("auto", "cpu", "cuda")
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
    accelerator: str = "auto"
    """auto, cpu or cuda."""
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
    if arguments.accelerator not in ACCELERATORS:
        raise ValueError(f"--accelerator must be {', '.join(ACCELERATORS[:-1])} or cuda, not {arguments.accelerator!r}")
    import torch  # late: see dfplan.command

    if arguments.accelerator == "cuda" and arguments.devices > torch.cuda.device_count():
        there = torch.cuda.device_count() or "none"
        raise ValueError(
            f"--accelerator cuda: {arguments.devices} CUDA devices are asked for, and torch finds {there} here"
        )
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


def train_one(arguments: Arguments) -> Path:
    """Train one recipe for one task, or on any data; the path of its weights."""
    name, task = arguments.recipe, None if arguments.env is None else find(arguments.env)
    if name not in {*RECIPES, *ONLINE}:
        raise unknown("recipe", name, [*RECIPES, *ONLINE])
    if task is not None:
        rows.require_recipes(task)
    weights = rows.of_data(name_of(str(arguments.data)) if task is None else short_name(task.data_id), name)
    about = {
        "name": rows.weights_name(weights, arguments.seed),
        "command": as_typed(arguments),
        "hardware": hardware() | {"accelerator": arguments.accelerator, "threads": arguments.threads},
        "versions": versions(),
    }
    run = Run(
        **{
            part: getattr(arguments, part)
            for part in ("recipe", "seed", "steps", "data", "accelerator", "devices", "quiet")
        },
        task=task,
        weights=weights,
        folder=arguments.run_dir or rows.run_folder(weights, arguments.seed),
        about=about,
    )
    return training_run.online(run) if name in ONLINE else training_run.offline(run)


def name_of(source: str) -> str:
    """What a folder can be called that is named after data: 'a-drive' of my/a drive.npz, 'mujoco-hopper-medium-v0'."""
    path = Path(source)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.suffix in (".npz", ".hdf5", ".h5") else source)


def as_typed(arguments: Arguments) -> str:
    """The command that trains these weights, without what has no effect on them."""
    asked = {name: getattr(arguments, name) for name in ("env", "recipe", "seed", "steps", "data")}
    words = (word for name, value in asked.items() if value is not None for word in (f"--{name}", str(value)))
    return shlex.join(["python", "benchmarks/train.py", *words])


@command.with_arguments(Arguments, __doc__, interrupted="the same command goes on from what is done")
def main(arguments: Arguments) -> None:
    """Train what the command line asks for."""
    prepare(arguments)
    for one in each(arguments):
        path = train_one(one)
        if not arguments.quiet:
            print(f"weights written to {path}")


if __name__ == "__main__":
    sys.exit(main())
