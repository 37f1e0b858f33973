"""Whether rollouts of ten times the training horizon stay possible: with the paper's stabilization, and without it.

Three systems whose possible states are known: a ball that bounces in a box, the same ball as frames of 32 x 32 pixels, and
the point mass in D4RL's umaze. For each system one model is trained with independent noise levels, one by teacher forcing,
and one with full-sequence diffusion. The first two draw one token after another, each from the tokens before it in the window.
The third draws a whole window after the last token. With k_small, past tokens are given to the model as slightly noisy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.benchmarks.suites import suite
from dfplan.data.windows import Windows
from dfplan.envs.registry import find

CLAIM = (
    "Over ten times the training horizon, rollouts by Diffusion Forcing with k_small have a smaller share of impossible states "
    "than those by teacher forcing, by full-sequence diffusion, and without k_small, in each of three systems."
)
PAGE = "claims"
DATA, LONGER, TENTHS = 4000, 10, 10
K_SMALL = 3
"""Of 64 levels."""
SYSTEMS: dict[str, dict[str, Any]] = {
    "ball": {"tokens": 16, "network": {}, "steps": 1000},
    "frames": {"tokens": 8, "network": {"width": 128, "octaves": 0}, "steps": 600},
    "maze": {"tokens": 16, "network": {}, "steps": 1000},
}
SEEDS = (0,)
METHODS = {
    "forcing, k_small": (shared.FORCING, K_SMALL),
    "forcing": (shared.FORCING, 0),
    "teacher forcing": ("next_token", 0),
    "full-sequence": ("shared", 0),
}
"""The draw of noise levels, and the level at which the past is seen."""
SPEED, SIDE, STRIDE, FASTEST = 0.08, 32, 8, 0.5
"""The ball's way in one token; pixels of a side; environment steps of a token in the maze, and its longest way."""


def parts(quick: bool) -> Settings:
    """A part for each system and training seed."""
    own = {"data": DATA, "rollouts": 8 if quick else 50, **({"steps": 100} if quick else {})}
    return {
        f"{name}, seed {seed}": {**system, "system": name, "seed": seed, **own}
        for name, system in SYSTEMS.items()
        for seed in SEEDS
    }


def play(settings: Part) -> Part:
    """Of each method: the share of impossible states in each rollout, and in each tenth of them all."""
    name, tokens = settings["system"], settings["tokens"]
    data, found = windows(name, tokens, settings["data"], seed=0), {}
    start = torch.from_numpy(windows(name, tokens, settings["rollouts"], seed=1)[:, : tokens - 1])
    for method, (draw, level) in METHODS.items():
        training = {"draw": draw, "tokens": tokens, "steps": settings["steps"], "seed": settings["seed"]}
        network = {"normalized": name != "frames", **settings["network"]}
        model = shared.trained(f"long-rollout-{name}", data, training, **network)
        memory, fresh = (1, tokens - 1) if draw == "shared" else (tokens - 1, 1)
        z = model.observation.normalize(start)
        drawn = shared.roll(model, z, z.shape[1] + LONGER * tokens, memory, fresh, stabilization=level)
        bad = impossible(name, model.observation.denormalize(drawn[:, z.shape[1] - 1 :]).numpy())
        tenths = [part.mean() for part in np.array_split(bad, TENTHS, axis=1)]
        found[method] = {"rollouts": shared.rounded(bad.mean(1)), "tenths": shared.rounded(tenths)}
    return {"impossible": found}


def windows(name: str, length: int, count: int, seed: int) -> NDArray[np.float32]:
    """Sequences (count, length, D) of a system."""
    rng = np.random.default_rng(seed)
    if name == "maze":
        return Windows(suite.data_of(find("maze2d-umaze")), length, STRIDE).sample(rng, count)[0]
    angle, states = rng.uniform(0, 2 * np.pi, count), []
    place, velocity = rng.uniform(0, 1, (count, 2)), SPEED * np.stack([np.cos(angle), np.sin(angle)], -1)
    for _ in range(length):
        states.append(np.concatenate([place, velocity], -1))
        place, velocity = bounced(place, velocity)
    x = np.stack(states, 1).astype(np.float32)
    return drawn_as_frames(x) if name == "frames" else x


def bounced(place: NDArray[Any], velocity: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Place and velocity (..., 2) of the ball one token later, in a box from 0 to 1."""
    there = place + velocity
    inside = np.where(there < 0, -there, np.where(there > 1, 2 - there, there))
    return inside, np.where((there < 0) | (there > 1), -velocity, velocity)


def drawn_as_frames(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """States (..., 4) of the ball as frames (..., SIDE * SIDE) in -1..1: a soft disc, four pixels or more from the edges."""
    pixel = np.arange(SIDE)
    near = [np.exp(-0.125 * (pixel - 4 - x[..., axis, None] * (SIDE - 9)) ** 2) for axis in (0, 1)]
    return (2 * near[0][..., :, None] * near[1][..., None, :] - 1).reshape(*x.shape[:-1], -1).astype(np.float32)


def impossible(name: str, x: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which states (N, S - 1) of sequences (N, S, D) cannot be, or cannot follow the one before."""
    then, now = x[:, :-1], x[:, 1:]
    if name == "frames":  # one disc of about its size
        lit = now.reshape(*now.shape[:2], SIDE, SIDE) > 0
        count = np.maximum(lit.sum((2, 3)), 1)
        spread = [
            lit.sum(3 - axis) @ np.arange(SIDE) ** 2 / count - (lit.sum(3 - axis) @ np.arange(SIDE) / count) ** 2
            for axis in (0, 1)
        ]
        return (count < 8) | (count > 34) | (np.sum(spread, 0) > 6)
    if name == "maze":  # in a wall, or farther than anything was recorded to move
        return shared.in_wall("umaze", now) | (np.linalg.norm((now - then)[..., :2], axis=-1) > FASTEST)
    place, velocity = bounced(then[..., :2], then[..., 2:])  # more than a step from where it must be
    error = np.maximum(np.abs(now[..., :2] - place).max(-1), np.abs(now[..., 2:] - velocity).max(-1))
    return error > SPEED


def values(played: Parts, measure: str) -> dict[str, dict[str, list[list[float]]]]:
    """By method and system: the shares of impossible states, a list for each training seed."""
    found: dict[str, dict[str, list[list[float]]]] = {method: {name: [] for name in SYSTEMS} for method in METHODS}
    for part in played.values():
        for method, own in part["impossible"].items():
            found[method][part["settings"]["system"]].append(own[measure])
    return found


def conclude(played: Parts) -> Verdict:
    """It held if in each system every other method has more, with the whole paired interval."""
    found = values(played, "rollouts")
    first, *others = found.values()
    held = all(shared.exceeds(other[name], first[name]) for other in others for name in SYSTEMS)
    rows = [[method, *own.values()] for method, own in shared.means(found).items()]
    steps = {part["settings"]["system"]: part["settings"]["steps"] for part in played.values()}
    trained = ", ".join(f"{name} {len(first[name])} x {n:,}" for name, n in steps.items())
    return held, shared.table(["rollout", *SYSTEMS], rows, ".1%") + (
        f"\n\nShare of impossible states in rollouts of {LONGER} training horizons, with its 95% interval over "
        f"{len(first['ball'][0])} rollouts of each training seed. k_small is level {K_SMALL} of {shared.LEVELS}. Training "
        f"seeds and optimizer steps: {trained}.\n"
    )


def figure(played: Parts) -> Figure:
    """The share of impossible states over the rollout, of each system."""
    found = values(played, "tenths")
    panels: dict[str, Any] = {name: {} for name in SYSTEMS}
    for method, by_system in found.items():
        for name, seeds in by_system.items():
            panels[name][method] = shared.means({i: [column] for i, column in enumerate(zip(*seeds, strict=True), 1)})
    return shared.plot(panels, "training horizons", "share of impossible states")
