"""What agents score while they are trained and afterwards, on tuning seeds: for cards and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from dfplan.benchmarks import protocol
from dfplan.benchmarks.protocol import TUNING_SEEDS, Episodes, evaluate
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
    played = [evaluate(agent, env_id, SCORE_SEEDS) for agent in agents]
    unit, means = _means(played, env_id)
    each = [
        {
            unit: mean,
            "returns": list(one.returns),
            "success": None if one.success is None else fmean(one.success),
            "seeds": list(one.seeds),
            "env": env_id,
        }
        for one, mean in zip(played, means, strict=True)
    ]
    return each[0] if len(each) == 1 else {unit: round(fmean(means), 1), "env": env_id, "each": each}


def measure(agents: Sequence[Any], env_id: str) -> dict[str, float]:
    """A point of a learning curve: the mean score of agents on `CURVE_SEEDS`, named by what the score is."""
    unit, means = _means([evaluate(agent, env_id, CURVE_SEEDS) for agent in agents], env_id, None)
    return {unit: round(fmean(means), 1)}


def _means(played: Sequence[Episodes], env_id: str, digits: int | None = 1) -> tuple[str, list[float]]:
    """What the score is, and the mean score of each agent."""
    reference = suite.of(task(env_id)).reference(task(env_id))
    scored = [protocol.score(reference, one.returns, one.success) for one in played]
    means = [float(values.mean()) for _, values in scored]
    return scored[0][0], means if digits is None else [round(mean, digits) for mean in means]
