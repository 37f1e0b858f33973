"""The choice among candidates: what judges them, and which one is taken.

Trying many lengths and taking the shortest plausible one is ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dfplan.models.token_value import at_level_zero
from dfplan.planning.ask import Ask
from dfplan.planning.asked_costs import sum_of, violation_cost
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.plan import Plan, hold_end
from dfplan.planning.plan_config import PlanConfig

LENIENCE = 10.0
"""Log-odds below the margin at which a plan can still be followed: what replanning mends."""
Score = Callable[[TrajectoryModel, Plan, Ask, int], Tensor | None]


def plausibility(model: TrajectoryModel, candidates: Plan, ask: Ask, each: int) -> Tensor | None:
    """Log-odds (B * N,) that the data could have made the least plausible step of a plan; None for a model without them."""
    return None if model.plausibility is None else worst_step(model, tokens_of(candidates), candidates.lengths)


def cost(model: TrajectoryModel, candidates: Plan, ask: Ask, each: int) -> Tensor | None:
    """The sum (B * N,) of the costs that are asked for."""
    return sum_of(ask.costs, candidates, each)


def violation(model: TrajectoryModel, candidates: Plan, ask: Ask, each: int) -> Tensor | None:
    """The sum (B * N,) of the constraints' violations: 0 where all are kept."""
    return sum_of([violation_cost(constraint) for constraint in ask.constraints], candidates, each)


def value(model: TrajectoryModel, candidates: Plan, ask: Ask, each: int) -> Tensor | None:
    """The learned value (B * N,), in deviations of the recorded pace of reward; None for a model without it."""
    if model.value is None:
        return None
    return at_level_zero(model.value, hold_end(tokens_of(candidates), candidates.lengths))


SCORES: Mapping[str, Score] = {"plausibility": plausibility, "cost": cost, "violation": violation, "value": value}


def choose(scores: Mapping[str, Tensor], lengths: Tensor, config: PlanConfig) -> Tensor:
    """Of candidates (B, N) the one of the lowest `price`, where constraints come first. Index (B,).

    Of the candidates that can be followed, those that violate the constraints least come before all others. Their log-odds are
    at most `LENIENCE` below the margin or, where no candidate's are, below the best ones: what leads through a wall keeps no
    constraint, because nobody can follow it. A candidate with a length or score that is NaN or infinite is never chosen.
    Raises ValueError for a row without any other.
    """
    finite = torch.stack([lengths, *scores.values()]).isfinite().all(0)
    total = price(scores, lengths, config)
    if "violation" in scores:
        if "plausibility" in scores:
            odds = scores["plausibility"].masked_fill(~finite, -torch.inf)
            finite = finite & (odds >= odds.amax(1, keepdim=True).clamp(max=config.margin) - LENIENCE)
        least = scores["violation"].masked_fill(~finite, torch.inf)
        finite = finite & (least <= least.amin(1, keepdim=True))
    return lowest(total.masked_fill(~finite, torch.inf))


def price(scores: Mapping[str, Tensor], lengths: Tensor, config: PlanConfig) -> Tensor:
    """What candidates (B, N) cost, in tokens, constraints left out: what counts against a plan is so much more length.

    It is a plan's length, or its mean time in `dfplan.planning.trials`, `config.price` for each unit of plausibility below the
    margin, its cost, and minus `config.worth` for each unit of value.
    """
    total = scores.get("time", lengths)
    if "plausibility" in scores:
        odds = scores["plausibility"]
        # Among equals the more plausible wins: squashed odds are worth less than one token.
        total = total + config.price * (config.margin - odds).clamp(min=0) - torch.sigmoid(odds)
    return total + scores.get("cost", 0) - config.worth * scores.get("value", 0)


def judge(
    scores: Mapping[str, Score], model: TrajectoryModel, candidates: Plan, ask: Ask, each: int
) -> dict[str, Tensor]:
    """What the functions `scores` find of candidates, `each` of every start: (B * N,) by name."""
    found = {name: score(model, candidates, ask, each) for name, score in scores.items()}
    return {name: score for name, score in found.items() if score is not None}


def tokens_of(candidates: Plan) -> Tensor:
    """The candidates' tokens (B * N, T, C), which whoever proposes them must keep."""
    if candidates.tokens is None:
        raise ValueError(
            "candidates must keep their tokens: a function that proposes plans returned a plan without any"
        )
    return candidates.tokens


def worst_step(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Log-odds (B,) of the least plausible step between tokens 0..lengths of normalized tokens (B, T, C)."""
    return step_odds(model, tokens, lengths).amin(1)


def step_odds(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Log-odds (B, T - 1) of each step between tokens 0..lengths of normalized tokens (B, T, C); infinite beyond them."""
    places = tokens[..., model.config.layout.last][..., list(model.config.judged)]
    assert model.plausibility is not None
    odds = model.plausibility(places[:, :-1], places[:, 1:])
    inside = torch.arange(odds.shape[1], device=odds.device) < lengths.unsqueeze(1)
    return odds.masked_fill(~inside, float("inf"))


def lowest(cost: Tensor) -> Tensor:
    """The candidate of the lowest cost in each row of (B, N), never one of NaN or infinite cost. Index (B,).

    Raises ValueError for a row without a finite cost.
    """
    finite = cost.isfinite()
    if not bool(finite.any(dim=1).all()):
        raise ValueError(
            f"none of the {cost.shape[1]} candidate plans is finite: a guide's gradient, its scale, the start, the goal or "
            "the weights are out of range"
        )
    return cost.masked_fill(~finite, torch.inf).argmin(dim=1)
