"""Train the weights of an agent: collect the data if missing, train, and write one weights file.

    python benchmarks/train.py --env maze2d-large
    python benchmarks/train.py --env all --recipe all

Ctrl-C or a kill at any moment loses little: the same command goes on from the last checkpoint and, on a CPU with the same
number of threads, ends with the same weights bit for bit.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dfplan import command
from dfplan.benchmarks import online
from dfplan.benchmarks.protocol import TUNING_SEEDS, evaluate
from dfplan.benchmarks.provenance import hardware
from dfplan.benchmarks.recipe import Recipe
from dfplan.benchmarks.recipes import ONLINE, RECIPES, recipe
from dfplan.benchmarks.rows import weights_name
from dfplan.config_json import config_to_json
from dfplan.data.readers import load, load_minari
from dfplan.data.trajectories import Trajectories
from dfplan.envs.collect import own_data
from dfplan.envs.reference import normalized_score
from dfplan.envs.registry import Task, find
from dfplan.training.loop import require_trainable, train

ACCELERATORS = ("auto", "cpu", "cuda")
LARGEST_SEED = 2**31 - 1
"""What all the random generators that are seeded take."""


@dataclass(frozen=True)
class Arguments:
    env: str = "maze2d-large"
    """Environment, with or without its version, or 'all': the three mazes."""
    recipe: str = "default"
    """What to train: 'default', 'paper', a baseline such as 'diffuser' or 'iql', or 'all' of them."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    steps: int | None = None
    """Optimizer steps of the whole run instead of the recipe's own number. They are set at the start of a run: its learning
    rate ends at its last step."""
    data: str | None = None
    """Minari id, D4RL HDF5 file, npz file or 'd4rl:NAME'; without it the maze's own data, collected now if missing."""
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


def check(arguments: Arguments) -> None:
    """Raise ValueError for an option that no recipe can be trained with on this machine."""
    for name in ("threads", "devices", "steps"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if not 0 <= arguments.seed <= LARGEST_SEED:
        raise ValueError(f"--seed must lie in 0..{LARGEST_SEED}, not {arguments.seed}")
    if arguments.accelerator not in ACCELERATORS:
        raise ValueError(f"--accelerator must be {', '.join(ACCELERATORS[:-1])} or cuda, not {arguments.accelerator!r}")
    import torch

    if arguments.accelerator == "cuda" and arguments.devices > torch.cuda.device_count():
        there = torch.cuda.device_count() or "none"
        raise ValueError(
            f"--accelerator cuda: {arguments.devices} CUDA devices are asked for, and torch finds {there} here"
        )


def read_data(env: str, source: str | None) -> Trajectories:
    """The data to train on; a maze's own data is collected first if it is not there or not whole."""
    return load_minari(own_data(env)) if source is None else load(source)


def as_typed(arguments: Arguments) -> str:
    """The command that trains these weights, without what does not decide about them."""
    asked = {"env": arguments.env, "recipe": arguments.recipe, "seed": arguments.seed}
    optional = {"steps": arguments.steps, "data": arguments.data}
    asked |= {name: value for name, value in optional.items() if value is not None}
    return " ".join(
        ["python benchmarks/train.py", *(f"--{name} {shlex.quote(str(value))}" for name, value in asked.items())]
    )


def score(agent: Any, env_id: str, episodes: int = 20) -> dict[str, Any]:
    """What an agent scores on the first tuning seeds, for the card of its weights."""
    played = evaluate(agent, env_id, TUNING_SEEDS[:episodes])
    return {
        "normalized": round(float(normalized_score(env_id, np.array(played.returns)).mean()), 1),
        "returns": list(played.returns),
        "seeds": [int(seed) for seed in played.seeds],
        "env": env_id,
    }


def members(path: Path, recipe: Recipe, task: Task) -> list[Any]:
    """The agents of a weights file: one, or one for each of the training seeds that it holds."""
    arguments: list[tuple[int, ...]] = [()] if recipe.stacked == 1 else [(k,) for k in range(recipe.stacked)]
    return [recipe.prepare(recipe.agent.load(path, *which), task) for which in arguments]


def scores(agent: Any, recipe: Recipe, task: Task, episodes: int = 20) -> dict[str, Any]:
    """`score` of an agent as it comes back from its file, of each training seed in it; 'normalized' is their mean."""
    with TemporaryDirectory(prefix="dfplan-") as folder:
        path = Path(folder, "weights.safetensors")
        agent.save(path)
        each = [score(one, task.data_id, episodes) for one in members(path, recipe, task)]
    if len(each) == 1:
        return each[0]
    return {"normalized": round(fmean(one["normalized"] for one in each), 1), "env": task.data_id, "each": each}


def untrained(recipe: Recipe, seed: int) -> Any:
    """The learner of a recipe with its first weights."""
    import torch

    torch.manual_seed(seed)
    return recipe.learner() if recipe.stacked == 1 else recipe.learner(seeds=training_seeds(recipe, seed))


def training_seeds(recipe: Recipe, seed: int) -> tuple[int, ...]:
    return tuple(range(seed, seed + recipe.stacked))


def require_widths(learner: Any, data: Trajectories) -> None:
    """Raise ValueError unless the data have as many columns as a recipe's learner."""
    expected = len(learner.observation.mean), len(learner.action_low)
    found = data.observations.shape[1], data.actions.shape[1]
    if found != expected:
        raise ValueError(
            f"{data.name} has {found[0]} observation and {found[1]} action columns, "
            f"but the recipe is for {expected[0]} and {expected[1]}"
        )


def fit(recipe: Recipe, learner: Any, data: Trajectories, arguments: Arguments, run_dir: Path, task: Task) -> Path:
    """Train the learner of a recipe on data and return the path of the weights file, run_dir/weights.safetensors.

    Raises what `dfplan.training.loop.train` raises, and ValueError for data of other widths.
    """
    require_widths(learner, data)
    learner.fit_statistics(data)
    path = run_dir / "weights.safetensors"

    def probe() -> dict[str, float]:
        found = scores(recipe.agent(learner, recipe.config, {}), recipe, task, episodes=10)
        return {"normalized": found["normalized"]}

    result = train(
        learner,
        learner.batches(data),
        recipe.train,
        run_dir,
        header={"model": config_to_json(learner.config), "data": data.fingerprint},
        probe=probe if recipe.curve else None,
        probe_every=recipe.train.steps // max(recipe.curve, 1),
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        quiet=arguments.quiet,
    )
    if result.rank == 0:
        learner.load_state_dict(result.ema_state)
        learner.cpu().eval()
        card = {
            "name": weights_name(recipe.weights, arguments.seed),
            "command": as_typed(arguments),
            "seed": arguments.seed,
            "seeds": list(training_seeds(recipe, arguments.seed)),
            "steps": result.steps,
            "data": {"name": data.name, "steps": len(data), "fingerprint": data.fingerprint},
            "training_seconds": round(result.seconds, 1),
            "hardware": hardware() | {"accelerator": arguments.accelerator, "threads": arguments.threads},
            "metrics": result.metrics,
            "curve": result.curve,
            "agent": config_to_json(recipe.config),
            "score": scores(recipe.agent(learner, recipe.config, {}), recipe, task),
        }
        recipe.agent(learner, recipe.config, card).save(path)
    return path


def train_offline(arguments: Arguments, task: Task) -> Path:
    """Train a recipe on recorded data, collecting them first if they are missing."""
    chosen = recipe(task.maze, arguments.recipe)
    if chosen.stacked > 1 and arguments.seed:
        raise ValueError(
            f"{arguments.recipe!r} trains the seeds 0 to {chosen.stacked - 1} in one run: leave --seed out"
        )
    steps = chosen.train.steps if arguments.steps is None else arguments.steps
    chosen = replace(chosen, train=replace(chosen.train, seed=arguments.seed, steps=steps))
    run_dir, learner = run_folder(arguments, chosen.weights), untrained(chosen, arguments.seed)
    require_trainable(run_dir, chosen.train, {"model": config_to_json(learner.config)}, arguments.devices)
    began = time.perf_counter()
    data = read_data(task.data_id, arguments.data)
    if not arguments.quiet:
        print(f"{data.name}: {len(data):,} steps, ready after {time.perf_counter() - began:.0f} s")
    return fit(chosen, learner, data, arguments, run_dir, task)


def train_online(arguments: Arguments, task: Task) -> Path:
    """Train a recipe of stable-baselines3 in the environment itself."""
    chosen = online.online_recipe(task.maze, arguments.recipe)
    if arguments.data is not None:
        raise ValueError(f"the recipe {arguments.recipe!r} learns in the environment and takes no --data")
    if arguments.devices > 1:
        raise ValueError(f"the recipe {arguments.recipe!r} trains on one device, not on {arguments.devices}")
    # Networks this small are fastest on a CPU.
    device = "cpu" if arguments.accelerator == "auto" else arguments.accelerator
    return online.fit_online(
        chosen,
        run_folder(arguments, chosen.weights),
        seed=arguments.seed,
        steps=arguments.steps,
        command=as_typed(arguments),
        device=device,
        quiet=arguments.quiet,
    )


def run_folder(arguments: Arguments, weights: str) -> Path:
    return arguments.run_dir or Path("runs") / f"{weights}-seed{arguments.seed}"


def each(arguments: Arguments) -> list[Arguments]:
    """One for each maze and recipe: 'all' stands for every one. ValueError if they would share a folder."""
    envs = [f"maze2d-{maze}" for maze in RECIPES] if arguments.env == "all" else [arguments.env]
    names = [*next(iter(RECIPES.values())), *ONLINE] if arguments.recipe == "all" else [arguments.recipe]
    if len(envs) * len(names) > 1 and arguments.run_dir is not None:
        raise ValueError("several recipes cannot share one --run-dir: leave it out, and each has its folder in runs/")
    return [replace(arguments, env=env, recipe=name) for env in envs for name in names]


def train_one(arguments: Arguments) -> Path:
    task = find(arguments.env)
    return train_online(arguments, task) if arguments.recipe in ONLINE else train_offline(arguments, task)


@command.with_arguments(Arguments, __doc__, interrupted="the same command goes on from what is done")
def main(arguments: Arguments) -> None:
    """Train what the command line asks for."""
    import torch  # late: see dfplan.command

    check(arguments)
    torch.set_num_threads(arguments.threads)
    for one in each(arguments):
        path = train_one(one)
        if not arguments.quiet:
            print(f"weights written to {path}")


if __name__ == "__main__":
    sys.exit(main())
