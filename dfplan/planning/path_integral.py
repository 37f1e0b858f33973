"""Path integral control: a sequence of controls, improved by a weighted average of sampled ones.

Williams et al. 2017, *Information Theoretic MPC for Model-Based Reinforcement Learning*, Algorithm 2. The dynamics and the cost
are functions, and may hold a simulator, a map or learned weights. Not to be confused with the cross-entropy method, which
averages the best samples alike and adapts Sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dfplan.fields import CheckedFields, NotNegative, Positive, PositiveOrInf, Size
from dfplan.planning.plan import Plan

Array = NDArray[np.float64]
Rollout = Callable[[Array, Array], Array]
"""States (N, D) and actions (N, S, A) to the states (N, S, D) that follow each action."""
Cost = Callable[[Array, Array | None], Array]
"""States (B, K, S, D) and goals (B, G), None without any, to costs (B, K): the paper's S(E), without its control cost."""
Distance = Callable[[Array, Array], Array]
"""Points (B, K, S, G) and goals (B, G) to distances (B, K, S)."""


@dataclass(frozen=True)
class MPPIConfig(CheckedFields):
    """How controls are sampled and weighed. In learned dynamics a control is 1 at the highest recorded action."""

    action_dim: Size
    """Components of a control."""
    samples: Size = 128
    """K: sampled control sequences a plan."""
    controls: Size = 12
    """T: controls of a plan."""
    hold: Size = 4
    """Environment steps for which one control is held; a new plan is made when the first control of the last one is over."""
    sigma: Positive = 1.0
    """Standard deviation of the noise on a control; Sigma = sigma^2 I."""
    temperature: Positive = 0.1
    """lambda, in units of the cost: how much worse a sample may be and still count."""
    gamma: NotNegative = 0.0
    """Weight of the control cost u^T Sigma^-1 epsilon; 0 lets the cost alone decide."""
    limit: PositiveOrInf = 1.0
    """Controls are clipped to [-limit, limit]."""


def euclidean(points: Array, goals: Array) -> Array:
    """Straight distances (B, K, S) of points (B, K, S, G) to goals (B, G): walls between them do not count."""
    return np.asarray(np.linalg.norm(points - goals[:, None, None], axis=-1))


@dataclass(frozen=True)
class GoalCost:
    """Sum over a future's steps of how far the goal still is beyond `arrival`: reach it soon, then stay.

    `distance` may be another one than the Euclidean, such as the length of the shortest way between walls. ValueError without
    a goal.
    """

    distance: Distance = euclidean
    """Distances of points to goals."""
    arrival: float = 0.0
    """Distance from which on a state costs nothing."""
    columns: tuple[int, ...] = ()
    """Columns of a state that are compared with the goal; none: the first G."""

    def __call__(self, states: Array, goals: Array | None) -> Array:
        """Costs of rollouts: states (..., S, D) and goals to one number each (...)."""
        if goals is None:
            raise ValueError("this planner needs a goal: call reset(goal=...) before it acts")
        points = states[..., list(self.columns)] if self.columns else states[..., : goals.shape[-1]]
        distance = self.distance(points, goals)
        return np.maximum(distance - self.arrival, 0.0).sum(axis=-1)


def improve(
    rollout: Rollout,
    cost: Cost,
    states: Array,
    goals: Array | None,
    controls: Array,
    config: MPPIConfig,
    rng: np.random.Generator,
) -> tuple[Array, Plan]:
    """One path integral update of control sequences U (B, T, A) from states (B, D): u += sum_k w_k epsilon_k.

    The mean is taken of clipped controls, so that it keeps the limits; the first sample is U itself, without noise. A sample
    whose states or cost are NaN or infinite has no weight. Returns U and the best samples as plans, with their 'cost'. Raises
    ValueError for a row without a finite sample, and for a cost that is not (B, K).
    """
    B, T, A = controls.shape
    K, S = config.samples, T * config.hold
    noise = config.sigma * rng.standard_normal((B, K, T, A))
    noise[:, 0] = 0.0
    tried = np.clip(controls[:, None] + noise, -config.limit, config.limit)
    held = np.repeat(tried, config.hold, axis=2).reshape(B * K, S, A)
    futures = rollout(np.repeat(states, K, axis=0), held).reshape(B, K, S, -1)
    costs = cost(futures, goals)
    if np.shape(costs) != (B, K):
        raise ValueError(f"a cost of {K} samples for {B} states must be {(B, K)}, got {np.shape(costs)}")
    if config.gamma:
        costs = costs + config.gamma / config.sigma**2 * np.einsum("bta,bkta->bk", controls, noise)
    costs = np.where(np.isfinite(costs) & np.isfinite(futures).all(axis=(2, 3)), costs, np.inf)
    least = costs.min(axis=1)
    if np.isinf(least).any():
        raise ValueError(
            f"none of the {K} sampled futures is finite: the dynamics, the cost or the start are out of range"
        )
    weight = np.exp((least[:, None] - costs) / config.temperature)
    weight /= weight.sum(axis=1, keepdims=True)
    path = np.concatenate([states[:, None], futures[np.arange(B), costs.argmin(axis=1)]], axis=1)
    plan = Plan.whole(torch.from_numpy(path[:, :, None]), scores={"cost": torch.from_numpy(least)})
    return np.einsum("bk,bkta->bta", weight, tried), plan
