"""Zig-zag schedules against full-sequence ones and one token after another, at equal network evaluations.

The dial is the lag of a token behind the one before, as a share of the steps that a token takes: 0 is full-sequence, 1 is one
token after another, and the paper's zig-zags lie between. Each plan takes the same number of network evaluations, so that a
token has fewer steps where the lag is larger. At each setting of the dial, weights of independent levels play in umaze, with
plans to a known goal. They are compared with models of the same size, data and training that were trained on the levels of one
end of the dial only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dfplan.agents.loading import from_pretrained
from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.envs.reference import normalized_score

CLAIM = (
    "At equal network evaluations a zig-zag schedule scores more than full-sequence and than one token after another, by one "
    "model and by models trained for these alone, and fewer of its plans go through walls."
)
PAGE = "claims"
DIAL, ZIG_ZAG = (0.0, 0.025, 0.1, 0.3, 1.0), 0.025
"""The claim's zig-zag is that of the shipped agents: a lag of 0.2 of 8 steps."""
FIRST, ENDS = "maze2d-umaze-short", {"maze2d-umaze-full-sequence": 0.0, "maze2d-umaze-next-token": 1.0}
OPTIONS = {"horizons": 5, "window": 99}
"""All lengths are tried in each plan, so that each takes as many evaluations."""
EVALUATIONS, EPISODES = 48, 16
MEASURES = {"scores": ".1f", "free": ".0%"}


def parts(quick: bool) -> Settings:
    """Each weights and place of the dial on the protocol's first episodes, or on two."""
    same = {"evaluations": EVALUATIONS, "options": OPTIONS, "episodes": 2 if quick else EPISODES}
    turned = [*((FIRST, dial) for dial in DIAL), *ENDS.items()]
    return {f"{weights}, {dial}": {**same, "weights": weights, "dial": dial} for weights, dial in turned}


def schedule(evaluations: int, dial: float, tokens: int) -> dict[str, float]:
    """Steps of a token and lag, in rows, of a plan of so many tokens that takes so many evaluations."""
    steps = max(1, round(evaluations / (1 + (tokens - 1) * dial)))
    return {"steps": steps, "uncertainty": (evaluations - steps) / (tokens - 1)}


def play(settings: Part) -> Part:
    """The normalized scores, and of each episode the share of its plans that go through no wall."""
    agent, env_id = from_pretrained(settings["weights"]), "maze2d-umaze-v1"
    turned = schedule(settings["evaluations"], settings["dial"], agent.model.config.tokens)
    agent = agent.with_options(**settings["options"], **turned)
    scores: list[float] = []
    shares: list[float] = []
    for seed in protocol.evaluation_seeds(settings["episodes"]):
        plans: dict[int, Any] = {}

        def watch(agent: Any, *_: Any, plans: dict[int, Any] = plans) -> None:
            if agent.last_plan is not None:
                plans[id(agent.last_plan)] = agent.last_plan

        scores += normalized_score(env_id, protocol.play(agent, env_id, [seed], watch=watch).returns).tolist()
        free = [not shared.in_wall("umaze", plan.observations.numpy()).any() for plan in plans.values()]
        shares.append(float(np.mean(free)))
    return {"scores": shared.rounded(scores), "free": shared.rounded(shares)}


def conclude(played: Parts) -> Verdict:
    """It held if the zig-zag's paired difference to each end of the dial, and to the models trained for one, lies above 0 with
    its whole interval, in scores and in plans through no wall."""
    rows, held, zig_zag = [], True, played[f"{FIRST}, {ZIG_ZAG}"]
    for part in played.values():
        weights, dial = part["settings"]["weights"], part["settings"]["dial"]
        own = [f"{shared.mean([part[measure]]):{form}}" for measure, form in MEASURES.items()]
        gains = {measure: shared.difference([zig_zag[measure]], [part[measure]]) for measure in MEASURES}
        rows.append(
            [f"{weights}: {dial:g}", *own, *(f"{gains[measure]:+{form}}" for measure, form in MEASURES.items())]
        )
        held &= dial not in (0.0, 1.0) or all(shared.above(gain, 0.0) for gain in gains.values())
    head = ["weights: lag", "score", "plans through no wall", "zig-zag's score more", "zig-zag's plans more"]
    used = {part["settings"]["weights"]: part["settings"] for part in played.values()}
    spent = ", ".join(f"{weights} {own['evaluations']} and {own['episodes']}" for weights, own in used.items())
    return held, shared.table(head, rows) + (
        "\n\nMean normalized score and share of plans in an episode, with 95% intervals; then how much more the zig-zag with a "
        f"lag of {ZIG_ZAG} has on the same starts. Network evaluations of a plan, and episodes: {spent}.\n"
    )


def figure(played: Parts) -> Figure:
    """Scores over the dial, of the model that turns it, and of those that were trained for one end of it."""
    scores: dict[str, Any] = {}
    for part in played.values():
        weights, dial = part["settings"]["weights"], part["settings"]["dial"]
        scores.setdefault("one model" if weights == FIRST else weights, {})[dial] = [part["scores"]]
    return shared.plot({FIRST: shared.means(scores)}, "lag, as a share of a token's steps", "normalized score")
