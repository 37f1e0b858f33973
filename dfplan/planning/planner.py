"""A planner proposes candidates, scores them and chooses: three functions, each of which may be replaced.

`propose` (`dfplan.planning.proposal`) draws plans of many lengths at once, `SCORES` judge them and `choose` picks one for each
start (`dfplan.planning.choice`). If rounds of search are asked for, `dfplan.planning.search` improves the candidates before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dfplan.diffusion.costs import APART
from dfplan.planning.ask import Ask
from dfplan.planning.choice import SCORES, Score, choose, judge, tokens_of
from dfplan.planning.confidence import with_spread
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.past import Past
from dfplan.planning.plan import Plan, hold_end
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.proposal import propose
from dfplan.planning.search import refine

Propose = Callable[[TrajectoryModel, Tensor, Ask, PlanConfig, torch.Generator, Tensor, bool, Past | None], Plan]
Choose = Callable[[Mapping[str, Tensor], Tensor, PlanConfig], Tensor]


@dataclass(frozen=True)
class Planner:
    """What makes a plan: replace one function, and the others stay."""

    propose: Propose = propose
    """Candidates for each start: `propose`."""
    scores: Mapping[str, Score] = field(default_factory=lambda: SCORES)
    """Functions of model, candidates, what is asked for and candidates of each start, by the name under which `choose` finds
    their scores (B * N,); None leaves a score out."""
    choose: Choose = choose
    """Scores (B, N), lengths (B, N) and the config to the index (B,) of the candidate to take: `choose`."""


@torch.no_grad()
def make_plan(
    model: TrajectoryModel,
    observation: Tensor,
    ask: Ask,
    config: PlanConfig,
    generator: torch.Generator,
    *,
    horizons: Tensor | None = None,
    record: bool = False,
    planner: Planner | None = None,
    past: Past | None = None,
) -> Plan:
    """Plan what is asked for from observations (B, observation_dim), to goals (B, G) if the ask has any.

    All of them are in recorded units and on the model's device. `horizons` (B, H) are the plan lengths to try for each start,
    in tokens 1..T-1; without it they are `default_horizons`. Costs and constraints are asked for one candidate of every start
    at a time. `record` keeps the plan at every row of sampling. `past` is what happened before, of models with a history, and
    what is decided already.

    Candidates that are not finite (a cost without a finite gradient, too large a scale) are left out, with a warning.
    Raises ValueError where no candidate is left, for horizons, starts and goals that do not fit the model, for a known goal
    where the model was never shown one (`dfplan.planning.draws.TO_GOAL`) and its tokens hold more than one observation, and
    for a return where the model has learned none; CostError, a ValueError, for a cost that does not return costs.
    """
    _require_asked(model, observation, ask)
    planner, B = planner or Planner(), len(observation)
    if horizons is None:
        horizons = default_horizons(model, ask, config).expand(B, -1)
    if horizons.ndim != 2 or len(horizons) != B:
        raise ValueError(f"horizons must be ({B}, lengths), got {tuple(horizons.shape)}")
    if horizons.min() < 1 or horizons.max() > model.config.future:
        raise ValueError(f"horizons lie in 1..{model.config.future} tokens for this model, got {horizons.tolist()}")
    candidates = planner.propose(model, observation, ask, config, generator, horizons, record, past)
    if config.rounds:
        candidates = refine(model, observation, ask, config, generator, candidates, planner.scores, past)
    N = len(candidates) // B
    lost = ~(hold_end(tokens_of(candidates), candidates.lengths).abs() < APART).flatten(1).all(1)  # NaN is not below it
    if bool(lost.any()):
        warnings.warn(
            "some candidate plans are not finite and are left out: a guide has no finite gradient there, or too large a scale",
            UserWarning,
            stacklevel=2,
        )
    scores = judge(planner.scores, model, candidates, ask, N)
    lengths = candidates.lengths.float().masked_fill(lost, torch.nan)
    best = planner.choose({name: score.view(B, N) for name, score in scores.items()}, lengths.view(B, N), config)
    plan = replace(candidates, scores=scores).rows(torch.arange(B, device=best.device) * N + best)
    if config.spread:
        plan = with_spread(model, plan, observation, ask, config, generator, past)
    check_finite(plan.observations, plan.actions)
    return plan


def _require_asked(model: TrajectoryModel, observation: Tensor, ask: Ask) -> None:
    """Raise ValueError for starts and for parts of what is asked for that do not fit the model."""
    D, goals = model.config.layout.observation_dim, (len(observation), len(model.config.goal_columns))
    if observation.ndim != 2 or observation.shape[1] != D:
        raise ValueError(f"observations must be (B, {D}), got {tuple(observation.shape)}")
    if ask.goal is not None and ask.goal.shape != goals:
        raise ValueError(f"goals must be {goals}, one for each start, got {tuple(ask.goal.shape)}")
    if ask.return_ is not None and "return" not in model.config.condition:
        raise ValueError(
            "this model has learned no returns, so that it cannot be asked for one: ask for a goal or costs"
        )


def default_horizons(model: TrajectoryModel, ask: Ask, config: PlanConfig) -> Tensor:
    """Plan lengths (H,) to try, in tokens: the config's number of them towards a goal that ends a plan; else the longest, but
    where nothing is asked for `config.policy_tokens`, as the model is a policy then."""
    longest = model.config.future
    if ask.goal is not None and "goal" not in model.config.condition:
        # The shortest plausible one is chosen, so that without plausibility there is no choice.
        return evenly_spaced(1, longest, 1 if model.plausibility is None else config.horizons)
    return torch.tensor([longest if ask.steered or model.config.condition else min(config.policy_tokens, longest)])


def check_finite(observations: Tensor, actions: Tensor | None = None) -> None:
    """Raise ValueError unless all numbers of a plan are finite."""
    if not all(bool(part.isfinite().all()) for part in (observations, actions) if part is not None):
        raise ValueError("the plan is not finite: the start, the goal, a guide or the weights are out of range")


def evenly_spaced(low: int, high: int, count: int) -> Tensor:
    """`count` whole numbers evenly over low..high, the last one exactly high: (count,) int64."""
    return torch.linspace(high, low, count, dtype=torch.float32).round().long().flip(0)
