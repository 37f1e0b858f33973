"""The variational bound of a Gaussian process, whose likelihood is known, and of paths in a maze.

A small model is trained on sequences of a Gaussian process. Its bound on -log p(x) of new sequences is compared with the exact
value, after little and after much training and in three orders of denoising. The bound of odd sequences, which the process does
not make, is compared with that of new ones. The same is done with shipped weights for recorded paths in D4RL's umaze.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from dfplan.agents.loading import from_pretrained
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.benchmarks.suites import suite
from dfplan.data.windows import Windows
from dfplan.diffusion.bound import bound
from dfplan.diffusion.matrices import pyramid
from dfplan.envs.registry import find

CLAIM = (
    "The bound lies above -log p of a Gaussian process in each order of denoising, falls with training, and tells plans that "
    "the data do not make from others with an AUROC of at least 0.9."
)
PAGE = "claims"
TOKENS, COLUMNS, SEQUENCES = 8, 2, 100
STEPS, SEEDS = (100, 600, 3600), (0,)
ORDERS = {"full sequence": 0.0, "zig-zag": 0.1, "autoregressive": 1.0}
"""The lag between two tokens, as a share of a token's steps."""


def parts(quick: bool) -> Settings:
    """A part for each length of training and each training seed, and one for the maze."""
    steps, sequences = (STEPS[:2], 40) if quick else (STEPS, SEQUENCES)
    own = {"sequences": sequences, "rows": shared.LEVELS}
    process = {f"{n} steps, seed {seed}": {"steps": n, "seed": seed, **own} for n in steps for seed in SEEDS}
    return {**process, "maze": {"weights": "maze2d-umaze-short", **own, "rows": 32}}


def process(length: float) -> NDArray[np.float64]:
    """Covariance (T, T) of each column: smooth over so many tokens, with a little white noise."""
    t = np.arange(TOKENS)
    return 0.95 * np.exp(-0.5 * ((t[:, None] - t) / length) ** 2) + 0.05 * np.eye(TOKENS)


def draw(count: int, seed: int, length: float = 3.0) -> NDArray[np.float32]:
    """Sequences (count, T, C) of the process."""
    noise = np.random.default_rng(seed).standard_normal((count, TOKENS, COLUMNS))
    return np.einsum("st,ntc->nsc", np.linalg.cholesky(process(length)), noise).astype(np.float32)


def spliced(x: Any) -> Any:
    """The first half of each sequence, and the second one of the next."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], np.roll(x, 1, 0)[:, half:]], 1)


def play(settings: Part) -> Part:
    """Of the process, how far the bound lies above the exact value for each new sequence, in nats; and AUROCs."""
    count, rows = settings["sequences"], settings["rows"]
    if "weights" in settings:
        return {"auroc": _maze(settings["weights"], count, rows)}
    training = {"draw": "independent", "tokens": TOKENS, "steps": settings["steps"], "seed": settings["seed"]}
    model = shared.trained("bound", draw(20_000, seed=0), training)
    new, density = draw(count, seed=1), stats.multivariate_normal(np.zeros(TOKENS), process(3.0))
    exact = -sum(density.logpdf(new[..., column]) for column in range(COLUMNS))
    gap = {order: shared.rounded(bounds(model, new, share, rows) - exact) for order, share in ORDERS.items()}
    odd = {"two halves": spliced(new), "faster": draw(count, seed=2, length=1.5)}
    return {"gap": gap, "auroc": aurocs(model, odd, new, rows)}


def _maze(weights: str, count: int, rows: int) -> dict[str, float]:
    """AUROCs of recorded ways from one side of the maze to the other that are cut and joined, or mirrored: then they go
    through a wall, because umaze is open on the right alone."""
    model, data = from_pretrained(weights).model, suite.data_of(find("maze2d-umaze"))
    windows = Windows(data, model.config.tokens, model.config.layout.stride)
    ways, _ = windows.sample(np.random.default_rng(0), 20 * count)
    ways = ways[np.ptp(ways[..., 0], 1) > 1.5][:count]
    mirrored = ways * np.array([1, -1, 1, -1], np.float32) + np.array([0, 4, 0, 0], np.float32)
    return aurocs(model, {"two halves": spliced(ways), "through a wall": mirrored}, ways, rows)


def bounds(model: Any, x: Any, share: float, steps: int) -> NDArray[np.float64]:
    """The bound (N,) on -log p of sequences (N, T, C) in recorded units, a token in so many steps."""
    matrix = pyramid(x.shape[1], model.config.levels, steps, share * steps)
    z, generator = model.observation.normalize(torch.from_numpy(x)), torch.Generator().manual_seed(0)
    nats = bound(model.diffusion, z, matrix, generator)
    return (nats.double() + x.shape[1] * model.observation.std.double().log().sum()).numpy()


def aurocs(model: Any, odd: Mapping[str, Any], usual: Any, steps: int) -> dict[str, float]:
    """Of each kind of odd sequences the share of pairs with a usual one in which the odd one has the higher bound."""
    low, found = bounds(model, usual, 0.0, steps), {}
    for name, x in odd.items():
        higher = stats.mannwhitneyu(bounds(model, x, 0.0, steps), low).statistic
        found[name] = round(float(higher) / (len(x) * len(usual)), 4)
    return found


def gaps(played: Parts) -> dict[str, dict[int, list[list[float]]]]:
    """By order and steps of training: the gaps of each training seed."""
    found: dict[str, dict[int, list[list[float]]]] = {order: {} for order in ORDERS}
    for part in played.values():
        for order, own in part.get("gap", {}).items():
            found[order].setdefault(part["settings"]["steps"], []).append(own)
    return found


def conclude(played: Parts) -> Verdict:
    """It held if every mean gap lies above 0 and below that after less training, with its interval, and no AUROC of the most
    training, or of the maze, is below 0.9."""
    found = gaps(played)
    mean, steps = shared.means(found), list(found["zig-zag"])
    last = [part["auroc"] for part in played.values() if part["settings"].get("steps") == steps[-1]]
    worst = {f"{name} of the process": min(one[name] for one in last) for name in last[0]}
    worst |= {f"{name} in the maze": value for name, value in played["maze"]["auroc"].items()}
    held = all(shared.above(gap, 0.0) for by_steps in mean.values() for gap in by_steps.values())
    held &= all(shared.exceeds(own[less], own[more]) for own in found.values() for less, more in pairwise(steps))
    held &= min(worst.values()) >= 0.9
    flagged = ", ".join(f"{value:.3f} ({name})" for name, value in worst.items())
    head, rows = ["order", *(f"{n:,} optimizer steps" for n in steps)], [[o, *mean[o].values()] for o in ORDERS]
    return held, shared.table(head, rows, ".2f") + (
        f"\n\nMean distance of the bound above the exact -log p, in nats for a sequence of {TOKENS * COLUMNS} numbers, with "
        f"its 95% interval over {len(found['zig-zag'][steps[-1]][0])} sequences of each of {len(last)} training seeds. AUROC "
        f"of odd plans, the lowest of the training seeds: {flagged}.\n"
    )


def figure(played: Parts) -> Figure:
    """The distance above the exact value, over training."""
    return shared.plot(
        {"": shared.means(gaps(played))}, "optimizer steps", "bound above the exact -log p, nats", log=True
    )
