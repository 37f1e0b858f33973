"""Whether a model with a short memory joins parts of recorded trajectories into new ones: the paper's cross.

Recorded trajectories start at one of four corners, rest at the center and leave for the opposite corner, so that they form
a cross. With a memory that reaches back to the first corner, a model should go straight on. With a shorter one the input at the
center does not show that corner, and the model may leave for any corner: V shapes are compositions that nobody recorded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict

CLAIM = (
    "With the memory of a training sequence at least 95% of trajectories over a cross go straight on, as all recorded ones do; "
    "with a memory of two tokens at least 30% are V shapes, which none is; and at least 95% of all states lie on the cross."
)
PAGE = "claims"
ARM, TOKENS, MEMORIES, SEEDS = 4, 4, (1, 2, 3), (0, 1)
"""Steps from a corner to the center, and tokens of a training sequence."""
TOLERANCE = 0.15
"""Distance from the cross within which a state lies on it, if its arms have the length 1.41."""
ENDS, ON = ("straight", "V shape", "back", "elsewhere"), "states on the cross"


def parts(quick: bool) -> Settings:
    """A part for each training seed."""
    steps, trajectories = (300, 40) if quick else (2500, 100)
    training = {"draw": shared.FORCING, "tokens": TOKENS, "steps": steps}
    seeds = SEEDS[:1] if quick else SEEDS
    return {f"seed {seed}": {"training": {**training, "seed": seed}, "trajectories": trajectories} for seed in seeds}


def record(count: int, seed: int) -> NDArray[np.float32]:
    """Trajectories (count, S, 2): in, two steps of rest at the center, out, and a rest, with a little noise."""
    rng = np.random.default_rng(seed)
    way = np.concatenate([np.linspace(1, 0, ARM + 1), np.linspace(0, -1, ARM + 1), np.full(TOKENS - 1, -1)])
    corners = rng.choice([-1.0, 1.0], (count, 1, 2))
    return (way[:, None] * corners + rng.normal(0, 0.02, (count, len(way), 2))).astype(np.float32)


def play(settings: Part) -> Part:
    """Of each memory: how each trajectory ends, as an index of `ENDS`, and the share of its states that lie on the cross."""
    model = shared.trained("composition", record(4000, seed=0), settings["training"])
    first = torch.from_numpy(record(settings["trajectories"], seed=1)[:, :2])
    ends, on = {}, {}
    for memory in MEMORIES:
        drawn = shared.roll(model, model.observation.normalize(first), 2 * ARM + 4, memory, 1, steps=16)
        x = model.observation.denormalize(drawn).numpy()
        ends[str(memory)], on[str(memory)] = ended(x).tolist(), shared.rounded((off(x) < TOLERANCE).mean(1))
    return {"ends": ends, "on": on}


def off(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of states (..., 2) from the cross."""
    along = np.abs(np.abs(x[..., 0]) - np.abs(x[..., 1])) / np.sqrt(2)
    return np.maximum(along, np.abs(x).max(-1) - 1)


def ended(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """How trajectories (N, S, 2) end, as an index of `ENDS`: at which corner, seen from the first."""
    same = ((np.sign(x[:, 0]) * x[:, -1]) > 0).sum(-1)
    return np.where(np.abs(x[:, -1]).min(-1) < 0.5, 3, same)


def shares(played: Parts) -> dict[str, Any]:
    """The share of trajectories with each end, and of states on the cross, by memory."""
    ended = {
        name: {m: [np.equal(part["ends"][str(m)], end) for part in played.values()] for m in MEMORIES}
        for end, name in enumerate(ENDS)
    }
    found: dict[str, Any] = shared.means(
        {**ended, ON: {m: [p["on"][str(m)] for p in played.values()] for m in MEMORIES}}
    )
    return found


def conclude(played: Parts) -> Verdict:
    """It held if the lower limits of the three shares reach 95%, 30% and 95%."""
    found, longest = shares(played), MEMORIES[-1]
    reached = [
        (found["straight"][longest], 0.95),
        (found["V shape"][2], 0.3),
        (found[ON][2], 0.95),
        (found[ON][longest], 0.95),
    ]
    rows = [[memory, *(by_memory[memory] for by_memory in found.values())] for memory in MEMORIES]
    count = len(next(iter(played.values()))["on"]["1"])
    return all((share.low or 0) >= least for share, least in reached), shared.table(
        ["memory, tokens", *found], rows, ".0%"
    ) + (
        f"\n\nShare of trajectories by where they end, with its 95% interval over {count} of each of {len(played)} training "
        "seeds.\n"
    )


def figure(played: Parts) -> Figure:
    """How trajectories end, over the memory."""
    found = shares(played)
    return shared.plot({"": {name: found[name] for name in ENDS}}, "memory, tokens", "share of trajectories")
