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
    each = [_score(agent, env_id, SCORE_SEEDS) for agent in agents]
    (unit, _), *_ = each[0].items()
    each = [one | {unit: round(one[unit], 1)} for one in each]
    return (
        each[0] if len(each) == 1 else {unit: round(fmean(one[unit] for one in each), 1), "env": env_id, "each": each}
    )


def measure(agents: Sequence[Any], env_id: str) -> dict[str, float]:
    """A point of a learning curve: the mean score of agents on `CURVE_SEEDS`, named by what the score is."""
    each = [_score(agent, env_id, CURVE_SEEDS) for agent in agents]
    (unit, _), *_ = each[0].items()
    return {unit: round(fmean(one[unit] for one in each), 1)}


def _score(agent: Any, env_id: str, seeds: Sequence[int]) -> dict[str, Any]:
    """The mean score of an agent, under the name of what it is, then what it is the mean of."""
    played, where = protocol.evaluate(agent, env_id, seeds), task(env_id)
    unit, scores = protocol.score(suite.of(where).reference(where), played.returns, played.success)
    success = None if played.success is None else fmean(played.success)
    facts = {"returns": list(played.returns), "success": success, "seeds": list(seeds), "env": env_id}
    return {unit: float(scores.mean()), **facts}
