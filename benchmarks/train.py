"""Train the weights of an agent: collect the data if missing, train, and write one weights file.

    python benchmarks/train.py --env maze2d-large

Ctrl-C or a kill at any moment loses little: the same command goes on from the last checkpoint and, on a CPU, ends with
the same weights bit for bit.
"""

from __future__ import annotations

import os

# Idle OpenMP threads that spin slow a small network down many times on a machine with few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.benchmarks.protocol import TUNING_SEEDS, evaluate
from dfplan.benchmarks.recipes import Recipe, RecipeName, recipe
from dfplan.datasets import Trajectories, Windows
from dfplan.envs.collect import collect
from dfplan.envs.reference import normalized_score
from dfplan.envs.tasks import find
from dfplan.readers import load, load_minari
from dfplan.training import train
from dfplan.trajectory_model import TrajectoryModel


@dataclass(frozen=True)
class Arguments:
    env: str = "maze2d-large"
    """Environment, with or without its version."""
    recipe: RecipeName = "default"
    """Which recipe to train."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    steps: int | None = None
    """Optimizer steps instead of the recipe's own number."""
    data: str | None = None
    """Minari id, D4RL HDF5 file or 'd4rl:NAME'; without it the maze's own collected data, collected now if missing."""
    run_dir: Path | None = None
    """Folder of the run; without it runs/WEIGHTS-seedN."""
    accelerator: str = "auto"
    """auto, cpu or cuda."""
    devices: int = 1
    """Number of devices; on a CPU, of processes. Each sees a batch of its own."""
    threads: int = 1
    """CPU threads of each process. One is best for these small networks: use further cores for further runs."""
    quiet: bool = False
    """Show nothing."""


def read_data(env: str, source: str | None) -> Trajectories:
    """The data to train on; a maze's own data is collected first if it is not there."""
    if source is not None:
        return load(source)
    try:
        return load_minari(f"dfplan/{env}")
    except FileNotFoundError:
        return load_minari(collect(env))


def command(arguments: Arguments) -> str:
    """The command that trains these weights, without what does not decide about them."""
    asked = {"env": arguments.env, "recipe": arguments.recipe, "seed": arguments.seed}
    optional = {"steps": arguments.steps, "data": arguments.data}
    asked |= {name: value for name, value in optional.items() if value is not None}
    return " ".join(["python benchmarks/train.py", *(f"--{name} {value}" for name, value in asked.items())])


def score(path: Path, env_id: str, episodes: int = 20) -> dict[str, Any]:
    """What the weights score on the first tuning seeds, for their card."""
    played = evaluate(DiffusionForcingAgent.load(path), env_id, TUNING_SEEDS[:episodes])
    return {
        "normalized": round(float(normalized_score(env_id, np.array(played.returns)).mean()), 1),
        "returns": list(played.returns),
        "seeds": [int(seed) for seed in played.seeds],
        "env": env_id,
    }


def fit(recipe: Recipe, data: Trajectories, arguments: Arguments, run_dir: Path, env_id: str) -> Path:
    """Train a recipe on data and return the path of the weights file, run_dir/weights.safetensors."""
    torch.manual_seed(arguments.seed)
    model = TrajectoryModel(recipe.model)
    model.fit_statistics(data)
    windows = Windows(data, recipe.model.layout.steps(recipe.model.tokens))
    header = {"model": recipe.model.to_header(), "data": data.fingerprint}
    result = train(
        model,
        windows.sample,
        recipe.train,
        run_dir,
        header=header,
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        quiet=arguments.quiet,
    )
    path = run_dir / "weights.safetensors"
    if result.rank == 0:
        model.load_state_dict(result.ema_state)
        card = {
            "name": recipe.weights,
            "command": command(arguments),
            "seed": arguments.seed,
            "steps": result.steps,
            "data": {"name": data.name, "steps": len(data), "fingerprint": data.fingerprint},
            "training_seconds": round(result.seconds, 1),
            "metrics": result.metrics,
            "agent": recipe.agent.to_header(),
        }
        model.cpu().save(path, card)
        model.save(path, card | {"score": score(path, env_id)})
    return path


def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(arguments.threads)
    try:
        task = find(arguments.env)
        chosen = recipe(task.maze, arguments.recipe)
        steps = arguments.steps or chosen.train.steps
        chosen = replace(chosen, train=replace(chosen.train, seed=arguments.seed, steps=steps))
        run_dir = arguments.run_dir or Path("runs") / f"{chosen.weights}-seed{arguments.seed}"
        began = time.perf_counter()
        data = read_data(task.data_id, arguments.data)
        if not arguments.quiet:
            print(f"{data.name}: {len(data):,} steps, ready after {time.perf_counter() - began:.0f} s")
        path = fit(chosen, data, arguments, run_dir, task.data_id)
    except (ValueError, KeyError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not arguments.quiet:
        print(f"weights written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
