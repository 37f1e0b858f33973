"""Whether one model makes plans of 10 to 1,000 steps, with Diffuser beside it.

A small model is trained on recorded paths in D4RL's umaze, with pure noise as the tokens beyond a random end. It then plans
from a recorded state to the one a given number of steps later. Diffuser's shipped weights were trained on plans of one length.
Its network is a convolution over time, so it can be asked for other lengths too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from dfplan.agents.loading import from_pretrained
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.benchmarks.suites import suite
from dfplan.data.windows import Windows
from dfplan.diffusion.matrices import pyramid
from dfplan.diffusion.sampler import sample
from dfplan.envs.registry import find
from dfplan.planning.ask import Ask
from dfplan.planning.ends import known_ends

CLAIM = (
    "One model makes plans of 12 to 1,008 steps between recorded states of which, at each length, at least 90% are possible; "
    "Diffuser does so at its own length, and at no length more often."
)
PAGE = "claims"
STRIDE, TOKENS, SEEDS = 12, 85, (0,)
OWN = 124
"""Diffuser's length in umaze."""
LENGTHS = (12, 24, 48, 96, OWN, 192, 384, 684, 1008)
FASTEST = 0.065
"""Longest way of one step, in cells: a little more than any that was recorded."""


def parts(quick: bool) -> Settings:
    """A part for each training seed of the small model, and one for Diffuser."""
    steps, plans = (60, 10) if quick else (2000, 50)
    training = {"draw": "goal_ramp", "tokens": TOKENS, "steps": steps}
    forcing = {f"forcing, seed {seed}": {"training": {**training, "seed": seed}, "plans": plans} for seed in SEEDS}
    return {**forcing, "diffuser": {"weights": "maze2d-umaze-diffuser", "plans": plans}}


def play(settings: Part) -> Part:
    """Which plans of each length are possible."""
    data, found = suite.data_of(find("maze2d-umaze")), {}
    draw = by_forcing(settings["training"], data) if "training" in settings else by_diffuser(settings["weights"])
    for length in LENGTHS:
        ways = Windows(data, 2, length).sample(np.random.default_rng(1), settings["plans"])[0]
        with torch.no_grad():
            states, stride = draw(torch.from_numpy(ways[:, 0]), torch.from_numpy(ways[:, 1]), length)
        far = np.linalg.norm(np.diff(states[..., :2], axis=1), axis=-1).max(1) > FASTEST * stride
        found[str(length)] = (~far & ~shared.in_wall("umaze", states).any(1)).tolist()
    return {"possible": found}


def by_forcing(training: Part, data: Any) -> Any:
    """`draw(starts (B, 4), ends (B, 4), steps) -> planned states (B, T, 4), and the steps between two` of a small model."""
    ways = Windows(data, TOKENS, STRIDE).sample(np.random.default_rng(0), 5000)[0]
    network: dict[str, Any] = {"width": 96, "causal": False, "octaves": 5}
    model = shared.trained("variable-horizon", ways, training, **network)

    def draw(starts: Any, ends: Any, steps: int) -> Any:
        tokens = -(-steps // STRIDE) + 1
        start, end = (model.observation.normalize(one) for one in (starts, ends))
        shape, generator = (len(starts), tokens, 4), torch.Generator().manual_seed(0)
        matrix = pyramid(tokens, shared.LEVELS, 16, 0.4)
        z = sample(model.diffusion, matrix, shape, generator, known=known_ends(start, tokens, end)).tokens
        return model.observation.denormalize(z).numpy(), STRIDE

    return draw


def by_diffuser(weights: str) -> Any:
    """`draw` as of `by_forcing`, of shipped weights whose network is asked for plans of another length."""
    agent = from_pretrained(weights)
    learner, stride = agent.learner, agent.learner.config.layout.stride

    def draw(starts: Any, ends: Any, steps: int) -> Any:
        learner.config = replace(learner.config, tokens=max(3, -(-steps // stride) + 1))
        goals = ends[:, list(learner.config.goal_columns)]
        plan = learner.plan(starts, Ask(goal=goals), agent.config, torch.Generator().manual_seed(0))
        return plan.observations[:, :, -1].numpy(), stride

    return draw


def values(played: Parts) -> dict[str, dict[int, list[list[bool]]]]:
    """By model and length: which plans are possible, one list for each training seed."""
    models = {
        "one model": [part for name, part in played.items() if name != "diffuser"],
        "Diffuser": [played["diffuser"]],
    }
    return {name: {n: [part["possible"][str(n)] for part in own] for n in LENGTHS} for name, own in models.items()}


def conclude(played: Parts) -> Verdict:
    """It held if at each length the one model's share reaches 90%, Diffuser's does at its own, and at no length Diffuser's
    interval lies above the one model's."""
    one, diffuser = shared.means(values(played)).values()
    held = (
        all(one[n].value >= 0.9 and not shared.above(diffuser[n], one[n]) for n in LENGTHS)
        and diffuser[OWN].value >= 0.9
    )
    rows = [[n, one[n], diffuser[n]] for n in LENGTHS]
    training = next(part["settings"]["training"] for part in played.values() if "training" in part["settings"])
    seeds = values(played)["one model"][OWN]
    return held, shared.table(["steps", "one model", "Diffuser"], rows, ".0%") + (
        "\n\nShare of plans that are possible (no state in a wall, no way between two longer than any that was recorded), with "
        f"its 95% interval over {len(seeds[0])} plans of each of {len(seeds)} training seeds of the one model, after "
        f"{training['steps']:,} optimizer steps, and of one of Diffuser, which learned {OWN} steps.\n"
    )


def figure(played: Parts) -> Figure:
    """The share of possible plans over their length."""
    return shared.plot({"": shared.means(values(played))}, "steps of a plan", "share of possible plans", log=True)
