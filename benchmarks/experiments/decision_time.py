"""How long decisions of Diffusion Forcing take in eight robot tasks with one CPU thread, one observation at a time.

Some actions of a plan are played before the next plan is made: a decision takes a fraction of a millisecond, or a plan's time.
"""

from __future__ import annotations

from dfplan.benchmarks import rows, speed
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.envs.registry import find

CLAIM = (
    "With one CPU thread and one observation at a time, half of the decisions take 5 ms or less in every robot task whose "
    "states are observed, and a decision that makes a plan takes 100 ms or less at the median."
)
PAGE = "protocol"
ARMS = ("cube-single", "cube-double", "cube-triple", "scene", "puzzle-3x3")
WALKERS = ("hopper-mixed-own", "walker2d-mixed-own", "halfcheetah-mixed-own")
MEDIAN, PLAN = 5.0, 100.0
"""Milliseconds."""


def parts(quick: bool) -> Settings:
    """Every task with a thousand decisions, or one of them with a few."""
    if quick:
        return {ARMS[0]: {"env": ARMS[0], "decisions": 60}}
    return {env: {"env": env, "decisions": 1_000} for env in (*ARMS, *WALKERS)}


def play(settings: Part) -> Part:
    """The times of an agent's decisions in milliseconds; when an episode ends, another one begins at the same start."""
    task = find(settings["env"])
    agent = rows.row("diffusion-forcing").build(task, seed=0)
    return speed.time_decisions(agent, task.env_id, settings["decisions"], speed.SEED, threads=1)


def conclude(played: Parts) -> Verdict:
    """It held if no task is slower than `MEDIAN` and `PLAN`."""
    held = all(part["median"] <= MEDIAN and part["plan"] <= PLAN for part in played.values())
    lines = [
        [env, *(f"{part[name]:.2f}" for name in ("median", "p95", "mean", "plan")), f"{1e3 / part['mean']:.0f}"]
        for env, part in played.items()
    ]
    head = ["task", "median ms", "95th percentile", "mean", "with a plan, median", "decisions a second"]
    return held, shared.table(head, lines)
