"""Code that experiments share: small models of small systems, rollouts, and the text of numbers and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dfplan.intervals import Estimate, mean

LEVELS = 64
"""K of the small models."""
FORCING = "independent+ramp"
"""Their draw of levels, half and half: independent ones, and such as occur while a sequence is drawn from its past."""
Curves = Mapping[str, tuple[Sequence[float], Sequence[Estimate]]]
"""Of each line of a plot its x and its y."""


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
    import torch

    from dfplan.config_json import config_to_json
    from dfplan.data.tokens import TokenLayout
    from dfplan.data.trajectories import Trajectories
    from dfplan.data.windows import Windows
    from dfplan.models import TransformerConfig
    from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
    from dfplan.training.config import TrainConfig
    from dfplan.training.loop import train

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
    torch.set_num_threads(1)
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
    import torch

    from dfplan.diffusion.levels import inpainted, shared

    return inpainted(shared(batch, tokens, K, generator), torch.arange(tokens) == 0)


def next_tokens(
    model: Any, past: Any, fresh: int, generator: Any, *, levels: Any = None, steps: int = 8, stabilization: int = 0
) -> Any:
    """Normalized tokens (B, fresh, C) that follow the past ones (B, H, C), drawn together.

    The past has noise of its `levels` (B, H), or is clean; at the level `stabilization` it is seen as slightly noisy.
    """
    import torch
    import torch.nn.functional as F

    from dfplan.diffusion.matrices import full_sequence
    from dfplan.diffusion.sampler import Known, sample

    given, H = F.pad(past, (0, 0, 0, fresh)), past.shape[1]
    mask = (torch.arange(H + fresh) < H).expand(given.shape[:2])
    known = Known(given, mask, 0 if levels is None else F.pad(levels, (0, fresh)), noisy=levels is not None)
    matrix, shape = full_sequence(H + fresh, LEVELS, steps), (len(given), H + fresh, given.shape[2])
    return sample(model.diffusion, matrix, shape, generator, known=known, stabilization=stabilization).tokens[:, H:]


def roll(model: Any, start: Any, tokens: int, memory: int, fresh: int, **how: Any) -> Any:
    """Normalized tokens (B, tokens, C) that begin with `start` (B, H, C): `fresh` new ones at a time, each time of the
    `memory` latest ones alone, and drawn as `how` says (`next_tokens`)."""
    import torch

    generator, x = torch.Generator().manual_seed(0), start
    while x.shape[1] < tokens:
        x = torch.cat([x, next_tokens(model, x[:, -memory:], fresh, generator, **how)], 1)
    return x[:, :tokens]


def in_wall(maze: str, states: NDArray[Any]) -> NDArray[np.bool_]:
    """Which states (..., D), whose first two columns are a place in D4RL's maze of that name, stand in a wall."""
    from dfplan.envs.maze.layouts import WALL_SHIFT, named

    walls = named(maze).walls
    cell = np.clip(np.round(states[..., :2] - WALL_SHIFT).astype(int), 0, np.array(walls.shape) - 1)
    return walls[cell[..., 0], cell[..., 1]]


def rounded(values: Any) -> list[Any]:
    """An array as nested lists, which a result file keeps."""
    return np.round(np.asarray(values, np.float64), 4).tolist()


def above(one: Estimate, other: Estimate | float) -> bool:
    """Whether the whole interval of `one` lies above that of the other, or above a number."""
    high = other if isinstance(other, float) else other.high
    return one.low is not None and high is not None and one.low > high


def difference(one: Sequence[Any], other: Sequence[Any]) -> Estimate:
    """The mean of paired differences, each argument one array of values for each training seed."""
    return mean([np.subtract(a, b) for a, b in zip(one, other, strict=True)])


def text(estimate: Estimate, form: str = ".1f", sign: str = "") -> str:
    """An estimate with its interval, for a table; `form` '.0%' shows shares."""
    low, high = ("?" if limit is None else f"{limit:{sign}{form}}" for limit in (estimate.low, estimate.high))
    return f"{estimate.value:{sign}{form}} [{low}, {high}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in Markdown, the first cell of each its name."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(panels: Mapping[str, Curves], x: str, y: str, log: bool = False) -> Figure:
    """Lines with their intervals, in panels beside each other that have titles."""
    from dfplan.benchmarks.report.figures import BLUE, FAINT, GREEN, GRID, ORANGE, PINK, SKY

    drawn = Figure(figsize=(3.5 + 3.5 * len(panels), 4), layout="constrained")
    row = drawn.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        for (name, (at, found)), color in zip(curves.items(), (BLUE, ORANGE, GREEN, PINK, SKY, FAINT), strict=False):
            low, high = (
                [one.value if side is None else side for one, side in zip(found, sides, strict=True)]
                for sides in zip(*((one.low, one.high) for one in found), strict=True)
            )
            axes.plot(at, [one.value for one in found], color=color, label=name, marker="o", ms=3)
            axes.fill_between(at, low, high, color=color, alpha=0.15, lw=0)
        axes.set(xlabel=x, ylabel=y, title=title, **({"xscale": "log"} if log else {}))
        axes.grid(color=GRID)
    row[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn
