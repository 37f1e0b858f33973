"""A planner proposes candidates, scores them and chooses: three functions, each of which may be replaced.

`propose` draws plans of many lengths at once from a trajectory model (Algorithm 2 of Chen et al. 2024, once for all of them),
`SCORES` judge them, `choose` picks one for each start. Trying many lengths and taking the shortest plausible one is ours, not
the paper's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from dfplan.diffusion import matrices
from dfplan.diffusion.costs import (
    APART,
    Cost,
    LearnedReturn,
    ReachSoonest,
    ReachThroughout,
    WeightedSum,
    cost_of,
    in_units,
)
from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.levels import TO_GOAL
from dfplan.diffusion.sampler import Known, sample
from dfplan.fields import CheckedFields, NotNegative, Share, Size, SizeOrZero
from dfplan.models.token_value import at_level_zero
from dfplan.planning.ask import Ask
from dfplan.planning.ends import known_ends
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.past import Past
from dfplan.planning.patterns import ask_pattern
from dfplan.planning.plan import Plan

GUIDES = {"throughout": ReachThroughout, "soonest": ReachSoonest}
MATRICES = {"pyramid": matrices.pyramid, "trapezoid": matrices.trapezoid}


@dataclass(frozen=True)
class PlanConfig(CheckedFields):
    """How a plan is made. The defaults are those of the default recipe."""

    goal: Literal["known", "guided"] = "known"
    """Whether the goal is a known clean token at a plan's end, or only the guide draws the plan towards it."""
    horizons: Size = 20
    """Number of plan lengths tried, evenly spread over 1..T-1 tokens; 1 tries the longest only."""
    samples: Size = 1
    """Candidates of each length."""
    steps: Size = 8
    """Denoising steps of one token from pure noise to clean."""
    matrix: Literal["pyramid", "trapezoid"] = "pyramid"
    """Zig-zag from the start onwards, or from both ends towards the middle."""
    uncertainty: NotNegative = 0.2
    """Rows by which each token lags the one before it; 0 is full-sequence sampling."""
    eta: Share = 0.0
    """0 for DDIM, 1 for DDPM."""
    guide: Literal["throughout", "soonest"] = "soonest"
    """The cost that guides sampling: the mean distance to the goal, or the time to reach it."""
    scale: NotNegative = 0.0
    """Strength of this guide; 0 turns it off. Costs that are asked for have weights of their own."""
    futures: SizeOrZero = 0
    """Sampled futures of Monte Carlo guidance; 0 guides by the one prediction."""
    future_steps: Size = 8
    """Denoising steps that draw one future or candidate; 1 draws none, it gives the network's mean."""
    decided: SizeOrZero = 0
    """Tokens after the start that guidance decides, over futures of all others; 0: what has begun to fall."""
    candidates: SizeOrZero = 0
    """Draws of what is decided, which are weighed by their costs; 0 follows the costs' gradient."""
    policy_tokens: Size = 1
    """Tokens that are drawn where nothing is asked for: the next one alone, or a chunk of several."""
    value_scale: NotNegative = 0.0
    """Strength of guidance by the learned value, a deviation of which counts as 1; 0 turns it off."""
    worth: NotNegative = 1.0
    """In the choice, each deviation of learned value counts as so many tokens less."""
    margin: float = -4.0
    """A plan is possible if the log-odds of each of its steps (`plausibility`) are at least this."""
    price: NotNegative = 1.0
    """In the choice, each unit of log-odds below the margin counts as so many tokens more."""


Propose = Callable[[TrajectoryModel, Tensor, Ask, PlanConfig, torch.Generator, Tensor, bool, Past | None], Plan]
Score = Callable[[TrajectoryModel, Plan, Ask, int], Tensor | None]
Choose = Callable[[Mapping[str, Tensor], Tensor, PlanConfig], Tensor]


def propose(
    model: TrajectoryModel,
    observation: Tensor,
    ask: Ask,
    config: PlanConfig,
    generator: torch.Generator,
    horizons: Tensor,
    record: bool = False,
    past: Past | None = None,
) -> Plan:
    """Candidates, B * N rows: `config.samples` plans for each start (B, observation_dim) and each of its horizons (B, H).

    Candidates of one start are neighbors. Raises ValueError for a known goal where the model was never shown one.
    """
    N, T, present = horizons.shape[1] * config.samples, int(horizons.max()) + 1, model.config.present
    lengths = horizons.to(observation.device).repeat_interleave(config.samples, dim=1).flatten()  # (B * N,)
    ask = replace(ask, goal=None if ask.goal is None else ask.goal.repeat_interleave(N, dim=0))
    starts, before = observation.repeat_interleave(N, dim=0), None if past is None else past.repeated(N)
    matrix = MATRICES[config.matrix](T, model.config.levels, config.steps, config.uncertainty)
    drawn = sample(
        model.diffusion,
        torch.cat([matrix[:, :1].expand(-1, present), matrix], 1),
        (len(lengths), present + T, model.config.width),
        generator,
        known=_known(model, starts, ask if config.goal == "known" else replace(ask, goal=None), lengths, T, before),
        lengths=present + lengths + 1,
        guidance=_guidance(model, ask, lengths, N, config),
        eta=config.eta,
        record=record,
    )
    layout = model.config.layout
    tokens = drawn.tokens[:, present:, : layout.width]
    return Plan(
        _observations(model, tokens, lengths),
        lengths,
        _of_tokens(drawn.levels, present),
        tokens,
        _actions(model, tokens, lengths) if layout.actions else None,
        history=[
            (_observations(model, x[:, present:, : layout.width], lengths), _of_tokens(k, present))
            for x, k in drawn.history
        ],
    )


def plausibility(model: TrajectoryModel, candidates: Plan, ask: Ask, each: int) -> Tensor | None:
    """Log-odds (B * N,) that the data could have made the least plausible step of a plan; None for a model without them."""
    return None if model.plausibility is None else worst_step(model, _tokens(candidates), candidates.lengths)


def cost(model: TrajectoryModel, candidates: Plan, ask: Ask, each: int) -> Tensor | None:
    """The sum (B * N,) of the costs that are asked for."""
    return _sum_of(ask.costs, candidates, each)


def violation(model: TrajectoryModel, candidates: Plan, ask: Ask, each: int) -> Tensor | None:
    """The sum (B * N,) of the constraints' violations: 0 where all are kept."""
    return _sum_of([_violation(constraint) for constraint in ask.constraints], candidates, each)


def value(model: TrajectoryModel, candidates: Plan, ask: Ask, each: int) -> Tensor | None:
    """The learned value (B * N,), in deviations of the recorded pace of reward; None for a model without it."""
    if model.value is None:
        return None
    return at_level_zero(model.value, hold_end(_tokens(candidates), candidates.lengths))


def value_by(value: Callable[[Tensor], Tensor]) -> Score:
    """A score by a learned value of normalized tokens (B, T, C) -> (B,), higher is better; for `Planner.scores`, as 'value'."""
    return partial(_value_of, value)


def _value_of(
    value: Callable[[Tensor], Tensor], model: TrajectoryModel, candidates: Plan, ask: Ask, each: int
) -> Tensor:
    return value(_tokens(candidates))


SCORES: Mapping[str, Score] = {"plausibility": plausibility, "cost": cost, "violation": violation, "value": value}


def choose(scores: Mapping[str, Tensor], lengths: Tensor, config: PlanConfig) -> Tensor:
    """Of candidates (B, N) the shortest one, where what tells against a candidate counts as so much more length. Index (B,).

    Those that violate the constraints least come before all others. Among these a plan costs its length, `config.price` for
    each unit of plausibility below the margin, its cost, and minus `config.worth` for each unit of value. A candidate with a
    length or score that is NaN or infinite is never chosen. Raises ValueError for a row without any other.
    """
    finite = torch.stack([lengths, *scores.values()]).isfinite().all(0)
    total = lengths
    if "plausibility" in scores:
        odds = scores["plausibility"]
        # Among equals the more plausible wins: squashed odds are worth less than one token.
        total = total + config.price * (config.margin - odds).clamp(min=0) - torch.sigmoid(odds)
    total = total + scores.get("cost", 0) - config.worth * scores.get("value", 0)
    if "violation" in scores:
        least = scores["violation"].masked_fill(~finite, torch.inf)
        finite = finite & (least <= least.amin(1, keepdim=True))
    return lowest(total.masked_fill(~finite, torch.inf))


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
    where the model was never shown one (`dfplan.diffusion.levels.TO_GOAL`) and its tokens hold more than one observation, and
    for a return where the model has learned none; CostError, a ValueError, for a cost that does not return costs.
    """
    planner, layout, G = planner or Planner(), model.config.layout, len(model.config.goal_columns)
    B, goal = len(observation), ask.goal
    if observation.ndim != 2 or observation.shape[1] != layout.observation_dim:
        raise ValueError(f"observations must be (B, {layout.observation_dim}), got {tuple(observation.shape)}")
    if goal is not None and goal.shape != (B, G):
        raise ValueError(f"goals must be ({B}, {G}), one for each start, got {tuple(goal.shape)}")
    if ask.return_ is not None and "return" not in model.config.condition:
        raise ValueError(
            "this model has learned no returns, so that it cannot be asked for one: ask for a goal or costs"
        )
    if horizons is None:
        horizons = default_horizons(model, ask, config).expand(B, -1)
    if horizons.ndim != 2 or len(horizons) != B:
        raise ValueError(f"horizons must be ({B}, lengths), got {tuple(horizons.shape)}")
    if horizons.min() < 1 or horizons.max() > model.config.future:
        raise ValueError(f"horizons lie in 1..{model.config.future} tokens for this model, got {horizons.tolist()}")
    candidates = planner.propose(model, observation, ask, config, generator, horizons, record, past)
    N = len(candidates) // B
    lost = ~(hold_end(_tokens(candidates), candidates.lengths).abs() < APART).flatten(1).all(1)  # NaN is not below it
    if bool(lost.any()):
        warnings.warn(
            "some candidate plans are not finite and are left out: a guide has no finite gradient there, or too large a scale",
            UserWarning,
            stacklevel=2,
        )
    found = {name: score(model, candidates, ask, N) for name, score in planner.scores.items()}
    scores = {name: score for name, score in found.items() if score is not None}
    lengths = candidates.lengths.float().masked_fill(lost, torch.nan)
    best = planner.choose({name: score.view(B, N) for name, score in scores.items()}, lengths.view(B, N), config)
    plan = replace(candidates, scores=scores).rows(torch.arange(B, device=best.device) * N + best)
    check_finite(plan.observations, plan.actions)
    return plan


def default_horizons(model: TrajectoryModel, ask: Ask, config: PlanConfig) -> Tensor:
    """Plan lengths (H,) to try, in tokens: the config's number of them towards a goal that ends a plan; else the longest, but
    where nothing is asked for `config.policy_tokens`, as the model is a policy then."""
    longest = model.config.future
    if ask.goal is not None and "goal" not in model.config.condition:
        # The shortest plausible one is chosen, so that without plausibility there is no choice.
        return spread(1, longest, 1 if model.plausibility is None else config.horizons)
    return torch.tensor([longest if ask.steered or model.config.condition else min(config.policy_tokens, longest)])


def _tokens(candidates: Plan) -> Tensor:
    """The candidates' tokens (B * N, T, C), which whoever proposes them must keep."""
    if candidates.tokens is None:
        raise ValueError(
            "candidates must keep their tokens: a function that proposes plans returned a plan without any"
        )
    return candidates.tokens


def worst_step(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Log-odds (B,) of the least plausible step between tokens 0..lengths of normalized tokens (B, T, C)."""
    places = tokens[..., model.config.layout.last][..., list(model.config.judged)]
    assert model.plausibility is not None
    odds = model.plausibility(places[:, :-1], places[:, 1:])
    inside = torch.arange(odds.shape[1], device=odds.device) < lengths.unsqueeze(1)
    return odds.masked_fill(~inside, float("inf")).amin(1)


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


def check_finite(observations: Tensor, actions: Tensor | None = None) -> None:
    """Raise ValueError unless all numbers of a plan are finite."""
    if not all(bool(part.isfinite().all()) for part in (observations, actions) if part is not None):
        raise ValueError("the plan is not finite: the start, the goal, a guide or the weights are out of range")


def spread(low: int, high: int, count: int) -> Tensor:
    """``count`` whole numbers evenly over low..high, the last one exactly high: (count,) int64."""
    return torch.linspace(high, low, count, dtype=torch.float32).round().long().flip(0)


def hold_end(x: Tensor, lengths: Tensor) -> Tensor:
    """Tokens (B, T, ...) where those beyond ``lengths`` (B,) repeat the one at it: noise without meaning lies there."""
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    return x[rows, torch.minimum(torch.arange(x.shape[1], device=x.device), lengths.unsqueeze(1))]


def _known(model: TrajectoryModel, start: Tensor, ask: Ask, lengths: Tensor, tokens: int, past: Past | None) -> Known:
    """The start as the present token of every candidate, and where they are asked for a goal and a return."""
    config, layout, normalize = model.config, model.config.layout, model.observation.normalize
    token = layout.state_token(normalize(start))
    if config.parts:
        before = None if past is None else past.normalized(normalize, model.action.normalize)
        wanted = None if ask.return_ is None else start.new_full((len(start),), ask.return_)
        return ask_pattern(config, token, tokens, model.normalized(ask.goal, wanted), lengths, before)
    if ask.goal is None:
        return known_ends(token, tokens)
    if layout.width > layout.observation_dim and not TO_GOAL & config.draws.keys():
        raise ValueError(
            "this model cannot plan to a known goal: its tokens hold more than one observation, and in training no token "
            f"stood for a goal; expected goal='guided', or one of {', '.join(sorted(TO_GOAL))} among its draws"
        )
    end = layout.state_token(normalize(model.state_at(ask.goal, config.goal_columns)))
    return known_ends(token, tokens, end, lengths)


def _guidance(model: TrajectoryModel, ask: Ask, lengths: Tensor, each: int, config: PlanConfig) -> Guidance | None:
    """The config's guides towards the goal and a high value, by their scales, costs and constraints, on tokens as the model
    sees them."""
    last, present, width = model.config.layout.last, model.config.present, model.config.layout.width

    def closing(x0: Tensor) -> Tensor:
        held = hold_end(x0[:, present:, last], lengths.repeat(len(x0) // len(lengths)))
        return model.observation.denormalize(held)

    terms: list[tuple[float, Cost]] = []
    if ask.goal is not None and config.scale > 0:
        terms.append((config.scale, in_units(GUIDES[config.guide](ask.goal, model.config.goal_columns), closing)))
    own = (*ask.costs, *(_violation(constraint) for constraint in ask.constraints))
    terms += [(1.0, in_units(_by_candidate(one, len(lengths) // each, each), closing)) for one in own]
    if model.value is not None and config.value_scale > 0:
        judge = partial(at_level_zero, model.value)
        terms.append((config.value_scale, in_units(LearnedReturn(judge), lambda x0: x0[:, present:, :width])))
    if not terms:
        return None
    decided = present + config.decided if config.decided else 0
    futures, steps, candidates = config.futures, config.future_steps, config.candidates
    return Guidance(WeightedSum(terms), futures=futures, future_steps=steps, decided=decided, candidates=candidates)


def _of_tokens(levels: Tensor, present: int) -> Tensor:
    """Levels (B, T) of a plan's tokens, from those of a sequence: of its least certain observation column."""
    return levels[:, present:] if levels.ndim == 2 else levels[:, present:, 0]


def _by_candidate(guide: Cost, starts: int, each: int) -> Cost:
    """One candidate of every start at a time: a user's function may hold a goal for each of the starts. Rows (n * B * each)."""

    def costs(x: Tensor) -> Tensor:
        parts = x.unflatten(0, (-1, starts, each)).transpose(1, 2)  # (n, each, B, ...)
        found = torch.stack([cost_of(guide, part) for part in parts.flatten(0, 1)])
        return found.unflatten(0, parts.shape[:2]).transpose(1, 2).flatten()

    return costs


def _violation(constraint: Cost) -> Cost:
    """A constraint as a cost: a violation is never below 0."""
    return lambda x: constraint(x).clamp(min=0)


def _sum_of(guides: Sequence[Cost], candidates: Plan, each: int) -> Tensor | None:
    """The sum (B * N,) of functions of closing observations; None where there are none."""
    closing, starts = candidates.observations[:, :, -1], len(candidates) // each
    return torch.stack([_by_candidate(guide, starts, each)(closing) for guide in guides]).sum(0) if guides else None


def _observations(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Observations (B, T, kept, observation_dim) in recorded units; a plan stays at its end beyond its length."""
    layout = model.config.layout
    held = hold_end(tokens[..., : layout.observation_width], lengths)
    return model.observation.denormalize(held.unflatten(-1, (layout.kept, layout.observation_dim)))


def _actions(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Actions (B, (T - 1) * stride, action_dim) in recorded units; beyond a plan's length the mean action."""
    actions = model.config.layout.unpack_actions(tokens)
    step = torch.arange(actions.shape[1], device=tokens.device).unsqueeze(-1)
    inside = step < (lengths * model.config.layout.stride).view(-1, 1, 1)
    return model.action.denormalize(torch.where(inside, actions, 0.0))
