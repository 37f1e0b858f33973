"""Code that experiments share: small models of small systems, rollouts, and the tables and plots of estimates.

The *values* of a line of a table or plot are one array for each training seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dfplan.benchmarks.report import figures
from dfplan.config_json import config_to_json
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import Windows
from dfplan.diffusion.levels import inpainted, shared
from dfplan.diffusion.matrices import full_sequence
from dfplan.diffusion.sampler import Known, sample
from dfplan.envs.maze.layouts import WALL_SHIFT, named
from dfplan.intervals import Estimate, mean
from dfplan.models import TransformerConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.training.config import TrainConfig
from dfplan.training.loop import train

LEVELS = 64
"""K of the small models."""
FORCING = "independent+ramp"
"""Their draw of levels, half and half: independent ones, and such as occur while a sequence is drawn from its past."""
Part = Mapping[str, Any]
"""A part of an experiment: its settings, or what was played with them."""
Parts = Mapping[str, Part]
"""By name: what was played, with its settings."""
Settings = dict[str, dict[str, Any]]
"""By name: the settings of each part, as plain JSON."""
Verdict = tuple[bool, str]
"""Whether the claim held, and the table in Markdown."""


def trained(
    name: str,
    observations: NDArray[np.float32],
    training: Mapping[str, Any],
    actions: Any = None,
    normalized: bool = True,
    **model: Any,
) -> Any:
    """A small `TrajectoryModel` of sequences (E, S, D), from its run folder under runs/ if it has been trained before.

    `training`: its draws of levels, tokens, steps and seed, and a precision. `actions` (E, S, A) are diffused with the
    observations. Without `normalized` the data are in the network's units already. `model`: further fields of its network.
    """
    E, S, D = observations.shape
    acted = np.zeros((E, S, 1), np.float32) if actions is None else actions
    flat = observations.reshape(-1, D), acted.reshape(E * S, -1), np.zeros(E * S, np.float32)
    data = Trajectories(*flat, np.arange(0, E * S, S), name=name)
    config = TrajectoryModelConfig(
        TokenLayout(D, acted.shape[-1], stride=1, actions=actions is not None),
        tokens=training["tokens"],
        model=TransformerConfig(**{"width": 64, "depth": 2, "causal": True, **model}),
        levels=LEVELS,
        weighting="uniform",
        draws=dict.fromkeys(training["draw"].split("+"), 1.0),
        plausibility=None,
        inverse=False,
    )
    torch.manual_seed(training["seed"])
    learner: Any = TrajectoryModel(config)
    if training["draw"] == "shared":
        learner.draw = shared_from_start
    if normalized:
        learner.fit_statistics(data)
    own = {name: training[name] for name in ("steps", "seed")} | {"precision": training.get("precision", "32-true")}
    run = TrainConfig(batch_size=max(16, 512 // training["tokens"]), learning_rate=2e-3, **own)
    header = {"model": config_to_json(config), "data": data.fingerprint}
    folder = Path("runs", "experiments", "-".join([name, *map(str, training.values())]))
    windows = Windows(data, training["tokens"]).sample
    learner.load_state_dict(train(learner, windows, run, folder, header=header, quiet=True).ema_state)
    return learner.eval()


def shared_from_start(batch: int, tokens: int, K: int, generator: Any, longest: Any = None) -> Any:
    """Full-sequence diffusion beyond a clean start: levels of training as sampling has them."""
    return inpainted(shared(batch, tokens, K, generator), torch.arange(tokens) == 0)


def next_tokens(
    model: Any, past: Any, fresh: int, generator: Any, *, levels: Any = None, steps: int = 8, stabilization: int = 0
) -> Any:
    """Normalized tokens (B, fresh, C) that follow the past ones (B, H, C), drawn together.

    The past has noise of its `levels` (B, H), or is clean; at the level `stabilization` it is seen as slightly noisy.
    """
    given, H = F.pad(past, (0, 0, 0, fresh)), past.shape[1]
    mask = (torch.arange(H + fresh) < H).expand(given.shape[:2])
    known = Known(given, mask, 0 if levels is None else F.pad(levels, (0, fresh)), noisy=levels is not None)
    matrix, shape = full_sequence(H + fresh, LEVELS, steps), (len(given), H + fresh, given.shape[2])
    return sample(model.diffusion, matrix, shape, generator, known=known, stabilization=stabilization).tokens[:, H:]


def roll(model: Any, start: Any, tokens: int, memory: int, fresh: int, **how: Any) -> Any:
    """Normalized tokens (B, tokens, C) that begin with `start` (B, H, C): `fresh` new ones at a time, each time of the
    `memory` latest ones alone, and drawn as `how` says (`next_tokens`)."""
    generator, x = torch.Generator().manual_seed(0), start
    while x.shape[1] < tokens:
        x = torch.cat([x, next_tokens(model, x[:, -memory:], fresh, generator, **how)], 1)
    return x[:, :tokens]


def in_wall(maze: str, states: NDArray[Any]) -> NDArray[np.bool_]:
    """Which states (..., D), whose first two columns are a place in D4RL's maze of that name, stand in a wall."""
    walls = named(maze).walls
    cell = np.clip(np.round(states[..., :2] - WALL_SHIFT).astype(int), 0, np.array(walls.shape) - 1)
    return walls[cell[..., 0], cell[..., 1]]


def rounded(values: Any) -> list[Any]:
    """An array as nested lists, which a result file keeps."""
    return np.round(np.asarray(values, np.float64), 4).tolist()


def means(values: Any) -> Any:
    """The mean of each of the values that a mapping holds, or mappings in it, in mappings of the same keys."""
    return {name: means(own) for name, own in values.items()} if isinstance(values, Mapping) else mean(values)


def above(one: Estimate, bound: Estimate | float) -> bool:
    """Whether the whole interval of `one` lies above a number, or above the other's whole interval."""
    high = bound.high if isinstance(bound, Estimate) else bound
    return one.low is not None and high is not None and one.low > high


def difference(one: Sequence[Any], other: Sequence[Any]) -> Estimate:
    """The mean difference of values that are pairs."""
    return mean([np.subtract(a, b) for a, b in zip(one, other, strict=True)])


def exceeds(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether the whole interval of the mean difference of values that are pairs lies above 0."""
    return above(difference(one, other), 0.0)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], form: str = "") -> str:
    """Rows in Markdown, the first cell of each its name; `form` is how estimates are written, as in f"{0.25:.0%}"."""
    cells = [[f"{cell:{form}}" if isinstance(cell, Estimate) else str(cell) for cell in row] for row in rows]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(panels: Mapping[str, Mapping[str, Mapping[Any, Estimate]]], x: str, y: str, log: bool = False) -> Figure:
    """Lines of estimates by x with their intervals, in panels beside each other that have titles."""
    drawn = Figure(figsize=(3.5 + 3.5 * len(panels), 4), layout="constrained")
    row = drawn.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, lines) in zip(row, panels.items(), strict=True):
        for (name, found), color in zip(lines.items(), cycle(figures.COLORS)):
            value, low, high = (
                [one.value if getattr(one, side) is None else getattr(one, side) for one in found.values()]
                for side in ("value", "low", "high")
            )
            axes.plot(list(found), value, color=color, label=name, marker="o", ms=3)
            axes.fill_between(list(found), low, high, color=color, alpha=0.15, lw=0)
        axes.set(xlabel=x, ylabel=y, title=title, xscale="log" if log else "linear")
        axes.grid(color=figures.GRID)
    row[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn
