"""Whether the futures that Monte Carlo guidance draws are spread as what was recorded, in D4RL's mazes.

Recorded states are taken in groups, of nearly the same place and velocity. The shipped weights draw one future of each state.
At some distances the spread of a group's futures is compared with that of what was recorded after the same states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.benchmarks.experiments import shared, variants
from dfplan.benchmarks.experiments.shared import Part
from dfplan.data.readers import load
from dfplan.data.trajectories import Trajectories
from dfplan.diffusion.monte_carlo import sample_futures
from dfplan.envs.collect import collect
from dfplan.planning.plan_config import PlanConfig

CLAIM = (
    "In each of D4RL's mazes, at each distance, the futures that guidance draws are spread as the recorded ones, within 30%, "
    "and those of one denoising step are not."
)
PAGE = "monte-carlo-guidance"
MAZES = ("maze2d-umaze", "maze2d-medium", "maze2d-large")
STEPS = (1, 4, PlanConfig.future_steps, 16)
SHARES = (0.25, 0.5, 1.0)
"""Distances, as shares of the longest plan."""
EVERY = 25
"""Recorded steps between two states that are compared, so that a group is of different drives."""
SEED = 200_000


def parts(quick: bool) -> dict[str, dict[str, Any]]:
    """Each maze: 16 groups of 48 states, or 4 groups."""
    return {
        maze: {"groups": 4 if quick else 16, "states": 48, "steps": list(STEPS), "shares": list(SHARES)}
        | {"maze": maze, "sha256": variants.digest(maze, "default")}
        for maze in MAZES
    }


def play(settings: Part) -> dict[str, Any]:
    """Tokens ahead, and there the spread of recorded places and, for each number of denoising steps, of drawn ones."""
    maze = settings["maze"]
    agent = DiffusionForcingAgent.load(variants.weights(maze, "default"))
    config = agent.model.config
    ahead = [round(share * config.future) for share in settings["shares"]]
    data, columns = load(collect(maze, quiet=True)), list(config.goal_columns)
    steps = [tokens * config.layout.stride for tokens in ahead]
    group = groups(data, settings["groups"], settings["states"], steps)
    places = data.observations[group[..., None] + np.array(steps)][..., columns]
    drawn = {
        str(count): spread(futures(agent.model, data.observations[group], count)[:, :, ahead][..., columns])
        for count in settings["steps"]
    }
    return {"tokens": ahead, "recorded": spread(places), "drawn": drawn}


def groups(data: Trajectories, count: int, each: int, steps: list[int]) -> NDArray[np.int64]:
    """Recorded states (count, each): random ones, each with those nearest to it, all followed by as many recorded steps."""
    every = np.arange(0, len(data), EVERY)
    end = data.episode_ends[np.searchsorted(data.episode_starts, every, side="right") - 1]
    every = every[every + max(steps) < end]
    states = torch.as_tensor(data.observations[every] / data.observations.std(0))
    chosen = np.random.default_rng(SEED).choice(len(every), count, replace=False)
    nearest: NDArray[np.int64] = every[torch.cdist(states[chosen], states).topk(each, largest=False).indices.numpy()]
    return nearest


@torch.no_grad()
def futures(model: Any, states: NDArray[Any], steps: int) -> NDArray[Any]:
    """Observations (groups, states, T, observation_dim) of a future of each state (groups, states, observation_dim)."""
    config, given = model.config, torch.as_tensor(states).flatten(0, 1)
    x = torch.zeros(len(given), config.tokens, config.width)
    x[:, 0] = config.layout.state_token(model.observation.normalize(given))
    k = torch.full(x.shape if config.parts else x.shape[:2], config.levels)
    k[:, 0] = 0
    generator = torch.Generator().manual_seed(SEED)
    with torch.autocast("cpu", torch.bfloat16):  # as an agent plans
        drawn = sample_futures(model.diffusion, x, k, k > 0, 1, steps, generator)[0]
    closing = model.observation.denormalize(drawn[..., config.layout.last])
    return np.asarray(closing.unflatten(0, states.shape[:2]))


def spread(places: NDArray[Any]) -> list[float]:
    """The spread at each distance of places (groups, states, distances, 2): the root of their mean variance in a group."""
    return np.sqrt(places.var(axis=1, ddof=1, dtype=np.float64).sum(-1).mean(0)).round(4).tolist()


def conclude(played: Mapping[str, Part]) -> tuple[bool, str]:
    """It held if drawn spreads are 70 to 130% of the recorded ones everywhere, and those of one step nowhere."""
    rows, default, mean = [], [], []
    for maze, part in played.items():
        for at, (tokens, recorded) in enumerate(zip(part["tokens"], part["recorded"], strict=True)):
            ratio = {int(steps): own[at] / recorded for steps, own in part["drawn"].items()}
            default.append(ratio[PlanConfig.future_steps])
            mean.append(ratio[1])
            rows.append([maze, tokens, f"{recorded:.2f}", *(f"{ratio[steps]:.0%}" for steps in STEPS)])
    head = ["maze", "tokens ahead", "recorded spread", *(f"{steps} step{'s' * (steps > 1)}" for steps in STEPS)]
    within = [0.7 <= ratio <= 1.3 for ratio in default]
    return all(within) and max(mean) < 0.7, shared.table(head, rows) + (
        "\n\nSpread of places in a maze's units, the root of their mean variance in a group of states, then the spread of "
        f"futures as a share of it, by denoising steps. Guidance takes {PlanConfig.future_steps} steps by default: "
        f"{min(default):.0%} to {max(default):.0%}.\n"
    )
