"""What agents score while they are trained and afterwards, on tuning seeds: for cards and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from dfplan.benchmarks import protocol
from dfplan.benchmarks.protocol import TUNING_SEEDS
from dfplan.benchmarks.suites import suite
from dfplan.envs.registry import task

SCORE_SEEDS = TUNING_SEEDS[:20]
"""Reset seeds of the score on a card."""
CURVE_SEEDS = TUNING_SEEDS[500:520]
"""Reset seeds of a learning curve, by which online training chooses its weights: others than those of the score."""


def score(agents: Sequence[Any], env_id: str) -> dict[str, Any]:
    """What agents, one for each training seed, score on `SCORE_SEEDS`, for the card of their weights.

    The entry that is named by what the score is, such as 'normalized', is a mean over the episodes; of several agents, each
    one's is in 'each', and the mean over them beside it.
    """
    unit, each = _played(agents, env_id, SCORE_SEEDS)
    return each[0] if len(each) == 1 else {unit: _mean(unit, each), "env": env_id, "each": each}


def measure(agents: Sequence[Any], env_id: str) -> dict[str, float]:
    """A point of a learning curve: the mean score of agents on `CURVE_SEEDS`, named by what the score is."""
    unit, each = _played(agents, env_id, CURVE_SEEDS)
    return {unit: _mean(unit, each)}


def _played(agents: Sequence[Any], env_id: str, seeds: Sequence[int]) -> tuple[str, list[dict[str, Any]]]:
    """What the score is, and of each agent its mean under that name, then what it is the mean of."""
    where, each = task(env_id), []
    for agent in agents:
        played = protocol.evaluate(agent, env_id, seeds)
        unit, scores = protocol.score(suite.of(where).reference(where), played.returns, played.success)
        success = None if played.success is None else fmean(played.success)
        facts = {"returns": list(played.returns), "success": success, "seeds": list(seeds), "env": env_id}
        each.append({unit: round(float(scores.mean()), 1), **facts})
    return unit, each


def _mean(unit: str, each: Sequence[dict[str, Any]]) -> float:
    return round(fmean(one[unit] for one in each), 1)
