"""From data to an agent in one call: `dfplan.train`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dfplan.agents.pictures import encoded
from dfplan.agents.recipes import recipe_for, require_recipe
from dfplan.data.pictures import Pictured
from dfplan.data.readers import load
from dfplan.data.trajectories import Trajectories
from dfplan.training.checkpoint import load_header
from dfplan.training.fit import Recipe, fit
from dfplan.training.interrupt import TrainingInterrupted
from dfplan.training.run_folder import CHECKPOINT

MEASURED_STEPS = 40
"""Optimizer steps whose time says how many fit into some minutes."""


def train(
    data: Any,
    recipe: str | Recipe = "chunks",
    *,
    minutes: float | None = None,
    steps: int | None = None,
    run_dir: str | Path | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    quiet: bool = False,
) -> Any:
    """Train on recorded data and return the agent, on the CPU.

        data = dfplan.load("cube-single-play-v0.npz", goal=(19, 20, 21))
        agent = dfplan.train(data, "chunks", minutes=5)

    Args:
        data: What `dfplan.load` gave, or a source as it takes one. Where it holds pictures, what makes numbers of them is
            trained first, which takes some minutes of its own, and is a part of the agent.
        recipe: "chunks" (actions are diffused in chunks) or "plans" (states are planned and tracked), or a `Recipe`.
        minutes: How long to train. The number of steps is measured first, and is in the agent's card: the same number of
            `steps` gives the same weights again.
        steps: Optimizer steps in place of minutes; without either, the recipe's own.
        run_dir: Folder that keeps checkpoints and the weights, so that the same call goes on after an interruption; None
            keeps nothing but the agent. What sees pictures has a folder beside it, whose name ends in `-pictures`.
        seed: Of weights, batches and noise.
        accelerator: "auto", "cpu" or "cuda".
        quiet: Show no progress.

    Raises ValueError for an unknown recipe, for minutes and steps at once, and what `dfplan.load` and
    `dfplan.training.fit.fit` raise.
    """
    if minutes is not None and steps is not None:
        raise ValueError("give minutes or steps, not both: either says how long to train")
    if minutes is not None and not (isinstance(minutes, Real) and 0 < minutes < float("inf")):
        raise ValueError(f"minutes must be a finite number above 0, got {minutes!r}")
    if isinstance(recipe, str):
        require_recipe(recipe)
    data = data if isinstance(data, Trajectories | Pictured) else load(data)
    with ExitStack() as kept:
        folder = Path(run_dir or Path(kept.enter_context(TemporaryDirectory(prefix="dfplan-")), "run"))
        encoder = None
        if isinstance(data, Pictured):
            beside = folder.with_name(f"{folder.name}-pictures")
            data, encoder = encoded(data, beside, accelerator=accelerator, quiet=quiet)
        chosen = recipe_for(data, recipe, seed=seed, steps=steps)
        if minutes is not None:
            chosen = recipe_for(data, chosen, steps=steps_within(minutes, chosen, data, folder, accelerator))
        try:
            return fit(chosen, data, folder, encoder=encoder, accelerator=accelerator, quiet=quiet)
        except TrainingInterrupted:
            if run_dir is None:
                print(
                    "that folder is temporary and is removed; give run_dir=... for a training that can be continued",
                    file=sys.stderr,
                )
            raise


def steps_within(minutes: float, recipe: Recipe, data: Trajectories, run_dir: Path, accelerator: str) -> int:
    """How many optimizer steps fit into so many minutes, measured now; a run in this folder keeps its own number."""
    if (run_dir / CHECKPOINT).is_file():
        return int(load_header(run_dir / CHECKPOINT)["config"]["steps"])
    with TemporaryDirectory(prefix="dfplan-") as folder:
        trial = recipe_for(data, recipe, steps=MEASURED_STEPS)
        seconds = fit(trial, data, folder, accelerator=accelerator, quiet=True).card["training_seconds"]
    return max(1, round(minutes * 60 * MEASURED_STEPS / max(seconds, 1e-3)))
