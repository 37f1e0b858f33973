"""Whether a policy copes better with missing or wrong observations if it is given their noise level.

A cart on a plane is pushed at random and must stay near the origin. Models are trained on data of a controller that reads the
true state. A policy draws the next token (observation, and the action that leads there) from the last eight. While it acts, a
share of the observations is corrupted (noise as strong as the signal) or dropped. 'Told' means that such a token is given at
its noise level, a dropped one as pure noise. 'Not told' means that all tokens are given as clean, and that the last observation
is given again for a dropped one.
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
    "With 40% or more of the observations corrupted or dropped, the policy that is told stays nearer to the goal than the same "
    "one that is not told, and than one by teacher forcing; at 40% being told saves at least half of what is lost."
)
PAGE = "claims"
SHARES, KINDS, SEEDS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8), ("corrupted", "dropped"), (0,)
METHODS = {
    "forcing, told": (shared.FORCING, True),
    "forcing, not told": (shared.FORCING, False),
    "teacher forcing, not told": ("next_token", False),
}
TOKENS, EPISODE, PUSH = 9, 50, 0.3
CORRUPTED = shared.LEVELS // 2
"""The level at which noise is as strong as the signal."""


def parts(quick: bool) -> Settings:
    """A part for each training seed."""
    steps, episodes = (200, 10) if quick else (1500, 40)
    settings = {"tokens": TOKENS, "steps": steps}
    return {f"seed {seed}": {"training": {**settings, "seed": seed}, "episodes": episodes} for seed in SEEDS}


def start(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """States (count, 4): x, y and their velocities."""
    return np.concatenate([rng.uniform(-2, 2, (count, 2)), np.zeros((count, 2))], -1)


def moved(state: NDArray[np.float64], action: NDArray[np.float64], push: NDArray[np.float64]) -> NDArray[np.float64]:
    """States one step later, of actions and pushes (..., 2)."""
    velocity = 0.9 * state[..., 2:] + 0.3 * np.clip(action, -1, 1) + push
    return np.concatenate([state[..., :2] + 0.3 * velocity, velocity], -1)


def record(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observations (count, S, 4) and actions (count, S, 2) of a controller that pulls to the origin, with some noise."""
    rng, rows = np.random.default_rng(seed), []
    state = start(rng, count)
    for _ in range(EPISODE):
        action = np.clip(-1.5 * state[:, :2] - 1.5 * state[:, 2:] + rng.normal(0, 0.2, (count, 2)), -1, 1)
        rows.append((state, action))
        state = moved(state, action, rng.normal(0, PUSH, (count, 2)))
    observations, actions = (np.stack(part, 1).astype(np.float32) for part in zip(*rows, strict=True))
    return observations, actions


def play(settings: Part) -> Part:
    """Of each method, kind and share: the mean distance from the origin in each episode."""
    observations, actions = record(1000, seed=0)
    cells, count, found = [(kind, share) for kind in KINDS for share in SHARES], settings["episodes"], {}
    for method, (draw, told) in METHODS.items():
        training = {"draw": draw, **settings["training"]}
        model = shared.trained("noisy-observations", observations, training, actions)
        own = distances(model, told, cells, count).reshape(len(cells), count)
        found[method] = {f"{kind} {share}": shared.rounded(one) for (kind, share), one in zip(cells, own, strict=True)}
    return {"distances": found}


def distances(model: Any, told: bool, cells: list[tuple[str, float]], count: int) -> NDArray[np.float64]:
    """The mean distance from the origin in each of `count` episodes of each cell, (cells * count,): in all cells and for all
    models the same starts, pushes and sensor noise."""
    rng, generator, N = np.random.default_rng(1), torch.Generator().manual_seed(1), len(cells)
    schedule, K = model.diffusion.schedule, torch.arange(shared.LEVELS + 1)
    deviation = schedule.noise(K) / schedule.signal(K)
    share = torch.tensor([share for _, share in cells]).repeat_interleave(count)
    dropped = torch.tensor([kind == "dropped" for kind, _ in cells]).repeat_interleave(count)
    state, action, total = np.tile(start(rng, count), (N, 1)), torch.zeros(N * count, 2), np.zeros(N * count)
    past, levels = torch.zeros(N * count, 0, 6), torch.zeros(N * count, 0, dtype=torch.int64)
    for step in range(EPISODE):
        true = torch.cat([model.observation.normalize(torch.from_numpy(state).float()), action], 1)
        bad = torch.from_numpy(np.tile(rng.uniform(size=count), N)) < share
        k = torch.where(bad, torch.where(dropped, shared.LEVELS, CORRUPTED), 0)
        error = torch.from_numpy(np.tile(rng.standard_normal((count, 6)), (N, 1))).float()
        seen = true + error * deviation[k, None]
        if not told:
            last = past[:, -1] if step else torch.zeros_like(true)
            seen = torch.cat([torch.where((bad & dropped)[:, None], last, seen)[:, :4], action], 1)
            k = torch.zeros_like(k)
        past = torch.cat([past, seen[:, None]], 1)[:, 1 - TOKENS :]
        levels = torch.cat([levels, k[:, None]], 1)[:, 1 - TOKENS :]
        past[:, 0, 4:] *= levels[:, :1] > 0  # the first token of a window has no action
        action = shared.next_tokens(model, past, 1, generator, levels=levels, steps=4)[:, 0, 4:].clamp(-5, 5)
        push = np.tile(rng.normal(0, PUSH, (count, 2)), (N, 1))
        state = moved(state, model.action.denormalize(action).double().numpy(), push)
        total += np.linalg.norm(state[:, :2], axis=1) / EPISODE
    return total


def values(played: Parts) -> dict[str, Any]:
    """By kind, method and share in percent: the distances, one array for each training seed."""

    def of(method: str, kind: str, share: float) -> list[NDArray[np.float64]]:
        return [np.array(part["distances"][method][f"{kind} {share}"]) for part in played.values()]

    return {kind: {m: {round(100 * s): of(m, kind, s) for s in SHARES} for m in METHODS} for kind in KINDS}


def conclude(played: Parts) -> Verdict:
    """It held if all paired intervals from 40% on, and those of the saving, lie above 0."""
    found, held, rows = values(played), True, []
    for kind, methods in found.items():
        told, untold, other = methods.values()
        held &= all(shared.exceeds(one[share], told[share]) for one in (untold, other) for share in told if share >= 40)
        halfway = [(clean + bad) / 2 for clean, bad in zip(told[0], untold[40], strict=True)]
        held &= shared.exceeds(halfway, told[40])
        rows += [[f"{method}: {kind}", *own.values()] for method, own in shared.means(methods).items()]
    return held, shared.table(["policy", *(f"{share}%" for share in told)], rows, ".2f") + (
        f"\n\nMean distance from the origin, with its 95% interval over {len(told[0][0])} episodes of each of {len(played)} "
        "training seeds, by the share of observations that are corrupted or dropped.\n"
    )


def figure(played: Parts) -> Figure:
    """The distance over the share, of each kind."""
    return shared.plot(shared.means(values(played)), "observations, %", "mean distance from the origin")
