"""What the options `speed` and `arrival` of the Diffusion Forcing agent add to its score in the mazes.

`speed` is the number of planned steps that are played in one environment step. `arrival` is the distance to the goal
within which a new plan stays at the goal. Neither is learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from dfplan.benchmarks import protocol
from dfplan.benchmarks.report.intervals import Estimate, compare, mean
from dfplan.envs.reference import normalized_score

CLAIM = "In each of the three mazes, `speed` raises the score, and so does `arrival`."
PAGE = "diffusion-forcing"
MAZES = ("maze2d-umaze", "maze2d-medium", "maze2d-large")
VARIANTS: dict[str, dict[str, float]] = {
    "as shipped": {},
    "speed=1": {"speed": 1.0},
    "arrival=0": {"arrival": 0.0},
    "speed=1, arrival=0": {"speed": 1.0, "arrival": 0.0},
}
Part = Mapping[str, Any]


def parts(quick: bool) -> dict[str, dict[str, Any]]:
    """Each variant in each maze on the protocol's first 100 episodes, or 5."""
    episodes = 5 if quick else protocol.EPISODES
    return {
        f"{maze}, {name}": {"maze": maze, "options": options, "sha256": _sha256(maze), "episodes": episodes}
        for maze in MAZES
        for name, options in VARIANTS.items()
    }


def play(settings: Part) -> dict[str, Any]:
    """The raw returns of the shipped weights with a variant's options, on one thread, and the options' values."""
    import torch  # late: --help needs no torch

    from dfplan.agents.diffusion_forcing import DiffusionForcingAgent

    torch.set_num_threads(1)
    agent = DiffusionForcingAgent.load(_weights(settings["maze"])).with_options(**settings["options"])
    found = protocol.evaluate(agent, f"{settings['maze']}-v1", protocol.evaluation_seeds(settings["episodes"]))
    return {"speed": agent.config.speed, "arrival": agent.config.arrival, "returns": list(found.returns)}


def conclude(played: Mapping[str, Part]) -> tuple[bool, str]:
    """It held if, in every maze, each option's whole paired interval lies below the score as shipped."""
    held, lines = True, ["| variant | " + " | ".join(MAZES) + " |", "| --- " * (len(MAZES) + 1) + "|"]
    for name, options in VARIANTS.items():
        cells = []
        for maze in MAZES:
            first, own = (
                normalized_score(f"{maze}-v1", played[f"{maze}, {v}"]["returns"]) for v in ("as shipped", name)
            )
            cells.append(_text(mean([own])))
            if options:
                change = compare(own, first, range(len(own)), range(len(first))).difference
                cells[-1] += f"<br>({_text(change, '+')})"
                held &= len(options) > 1 or (change.high is not None and change.high < 0)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return held, "\n".join(lines) + (
        f"\n\nMean D4RL-normalized score of {len(own)} episodes, with its 95% interval; in parentheses, the paired difference "
        "to the agent as shipped, on the same starts.\n"
    )


def _text(estimate: Estimate, sign: str = "") -> str:
    limits = ("?" if limit is None else f"{limit:{sign}.1f}" for limit in (estimate.low, estimate.high))
    return f"{estimate.value:{sign}.1f} [{', '.join(limits)}]"


def _weights(maze: str) -> str:
    return str(files("dfplan.agents").joinpath("pretrained", f"{maze}.safetensors"))


def _sha256(maze: str) -> str:
    with open(_weights(maze), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
