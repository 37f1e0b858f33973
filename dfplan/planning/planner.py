"""Planning with a trajectory model: many candidate plans of many lengths at once, and the choice among them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from dfplan.diffusion import matrices
from dfplan.diffusion.guidance import (
    APART,
    Guidance,
    Guide,
    ReachSoonest,
    ReachThroughout,
    WeightedSum,
    cost_of,
    in_units,
)
from dfplan.diffusion.levels import TO_GOAL
from dfplan.diffusion.sampler import Known, sample
from dfplan.fields import NotNegative, Share, Size, SizeOrZero, check_fields
from dfplan.planning.model import TrajectoryModel

GUIDES = {"throughout": ReachThroughout, "soonest": ReachSoonest}


@dataclass(frozen=True)
class PlanConfig:
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
    """Strength of this guide; 0 turns it off. A further guide given with a plan has a weight of its own, 1."""
    futures: SizeOrZero = 0
    """Sampled futures of Monte Carlo guidance; 0 guides by the one prediction."""
    future_steps: Size = 1
    """Denoising steps that draw one future; 1 draws none, it gives the network's mean."""
    margin: float = -4.0
    """A plan is possible if the critic's log-odds of each of its steps are at least this."""
    price: NotNegative = 1.0
    """Tokens of length that each unit of log-odds below the margin costs when candidates are compared."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Plan:
    """The chosen plan of each start. Not to be confused with what was executed: the agent follows it and replans."""

    observations: Tensor
    """(B, T, kept, observation_dim) in recorded units: token 0 is the start; beyond a plan's length its end repeats."""
    actions: Tensor | None
    """(B, (T - 1) * stride, action_dim) diffused actions in recorded units, where the tokens hold actions; beyond a
    plan's length they are the data's mean action."""
    lengths: Tensor
    """(B,) tokens after the start: the plan's horizon."""
    odds: Tensor
    """(B,) the critic's log-odds of the plan's worst step; below the margin, no candidate was possible."""
    history: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """For each row of sampling: observations (B, T, kept, observation_dim) of the chosen plan, levels (B, T)."""


@torch.no_grad()
def make_plan(
    model: TrajectoryModel,
    observation: Tensor,
    goal: Tensor | None,
    config: PlanConfig,
    generator: torch.Generator,
    *,
    horizons: Tensor | None = None,
    guide: Guide | None = None,
    record: bool = False,
) -> Plan:
    """Plan from observations (B, observation_dim) to goals (B, G), all in recorded units and on the model's device.

    horizons (B, H) are the plan lengths to try for each start, in tokens 1..T-1; without it the config's own. Without
    a goal nothing but the start is known, and without horizons only the next token is drawn: the model is a policy.
    ``guide`` is a further cost on tokens' closing observations (B, T, observation_dim) in recorded units, asked once
    for each candidate; beyond a plan's length it sees the plan's end. Its weight is 1: the cost that guides is
    ``config.scale`` times that of the goal plus the guide's.

    Candidates that are not finite (a guide without a finite gradient, too large a scale) are left out, with a warning.
    Raises ValueError where no candidate is left, for horizons, starts and goals that do not fit the model, and for a known
    goal where the model was never shown one (`dfplan.diffusion.levels.TO_GOAL`) and its tokens hold more than one observation;
    GuideError, a ValueError, for a guide that does not return what a guide returns.
    """
    layout, G = model.config.layout, len(model.config.goal_columns)
    if observation.ndim != 2 or observation.shape[1] != layout.observation_dim:
        raise ValueError(f"observations must be (B, {layout.observation_dim}), got {tuple(observation.shape)}")
    if goal is not None and goal.shape != (len(observation), G):
        raise ValueError(f"goals must be ({len(observation)}, {G}), one for each start, got {tuple(goal.shape)}")
    if horizons is None:
        longest = model.config.tokens - 1 if goal is not None else 1
        horizons = spread(1, longest, config.horizons if goal is not None else 1).expand(len(observation), -1)
    if horizons.ndim != 2 or len(horizons) != len(observation):
        raise ValueError(f"horizons must be ({len(observation)}, lengths), got {tuple(horizons.shape)}")
    if horizons.min() < 1 or horizons.max() >= model.config.tokens:
        raise ValueError(f"horizons lie in 1..{model.config.tokens - 1} tokens for this model, got {horizons.tolist()}")
    B, N = len(observation), horizons.shape[1] * config.samples
    T = int(horizons.max()) + 1
    lengths = horizons.to(observation.device).repeat_interleave(config.samples, dim=1).flatten()
    goals = None if goal is None else goal.repeat_interleave(N, dim=0)
    starts, ends = observation.repeat_interleave(N, dim=0), goals if config.goal == "known" else None
    shape = getattr(matrices, config.matrix)
    matrix = shape(T, model.config.levels, config.steps, config.uncertainty)
    drawn = sample(
        model.diffusion,
        matrix,
        (B * N, T, layout.width),
        generator,
        known=_known(model, starts, ends, lengths, T),
        lengths=lengths + 1,
        guidance=_guidance(model, goals, lengths, N, config, guide),
        eta=config.eta,
        record=record,
    )
    lost = ~(hold_end(drawn.tokens, lengths).abs() < APART).flatten(1).all(1)  # NaN is not below it
    if bool(lost.any()):
        warnings.warn(
            "some candidate plans are not finite and are left out: a guide has no finite gradient there, or too large a scale",
            UserWarning,
            stacklevel=2,
        )
    odds = worst_step(model, drawn.tokens, lengths).masked_fill(lost, torch.nan)
    best = choose(odds.view(B, N), lengths.view(B, N), config.margin, config.price)
    pick = torch.arange(B, device=best.device) * N + best
    plan = Plan(
        observations=_observations(model, drawn.tokens[pick], lengths[pick]),
        actions=_actions(model, drawn.tokens[pick], lengths[pick]) if layout.actions else None,
        lengths=lengths[pick],
        odds=odds[pick],
        history=[(_observations(model, x[pick], lengths[pick]), k[pick]) for x, k in drawn.history],
    )
    check_finite(plan.observations, plan.actions)
    return plan


def goal_observation(model: TrajectoryModel, goal: Tensor) -> Tensor:
    """A normalised observation (B, observation_dim) at the goal (B, G); its other columns are at the data's mean."""
    wished = model.observation.mean.repeat(len(goal), 1)
    wished[:, list(model.config.goal_columns)] = goal
    return model.observation.normalize(wished)


def worst_step(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The critic's log-odds of the least plausible step between tokens 0..lengths: (B,)."""
    places = tokens[..., model.config.layout.last][..., list(model.config.judged)]
    odds = model.critic(places[:, :-1], places[:, 1:])
    inside = torch.arange(odds.shape[1], device=odds.device) < lengths.unsqueeze(1)
    return odds.masked_fill(~inside, float("inf")).amin(1)


def choose(odds: Tensor, lengths: Tensor, margin: float, price: float) -> Tensor:
    """Of candidates (B, N), the shortest, where odds below the margin count as so much more length. Index (B,).

    A candidate whose odds are NaN or infinite is never chosen. Raises ValueError for a row without any other.
    """
    # Among equals the more plausible wins: squashed odds are worth less than one token.
    cost = lengths + price * (margin - odds).clamp(min=0) - torch.sigmoid(odds)
    return lowest(cost.masked_fill(~odds.isfinite(), torch.inf))


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


def _known(model: TrajectoryModel, start: Tensor, goal: Tensor | None, lengths: Tensor, tokens: int) -> Known:
    """The start as token 0 of every candidate and, where a goal (N, G) is given, the goal as its last one."""
    layout = model.config.layout
    known = start.new_zeros(len(start), tokens, layout.width)
    mask = torch.zeros(known.shape[:2], dtype=torch.bool, device=start.device)
    known[:, 0], mask[:, 0] = layout.state_token(model.observation.normalize(start)), True
    if goal is not None:
        row = torch.arange(len(start), device=start.device)
        if layout.width > layout.observation_dim and not TO_GOAL & model.config.draws.keys():
            raise ValueError(
                "this model cannot plan to a known goal: its tokens hold more than one observation, and in training no token "
                f"stood for a goal; expected goal='guided', or one of {', '.join(sorted(TO_GOAL))} among its draws"
            )
        known[row, lengths] = layout.state_token(goal_observation(model, goal))
        mask[row, lengths] = True
    return Known(known, mask)


def _guidance(
    model: TrajectoryModel,
    goals: Tensor | None,
    lengths: Tensor,
    candidates: int,
    config: PlanConfig,
    extra: Guide | None,
) -> Guidance | None:
    """The config's guide towards the goal, by its scale, and the user's own, on tokens as the model sees them."""
    last = model.config.layout.last
    terms: list[tuple[float, Guide]] = []
    if goals is not None and config.scale > 0:
        terms.append((config.scale, GUIDES[config.guide](goals, model.config.goal_columns)))
    if extra is not None:

        def each_candidate(x: Tensor) -> Tensor:
            """One candidate of every start at a time: the user's guide may hold a goal for each of the B starts."""
            return torch.stack([cost_of(extra, part) for part in x.unflatten(0, (-1, candidates)).unbind(1)], 1).flatten()

        terms.append((1.0, each_candidate))
    if not terms:
        return None
    guide = in_units(WeightedSum(terms), lambda x0: model.observation.denormalize(hold_end(x0[..., last], lengths)))
    return Guidance(guide, futures=config.futures, future_steps=config.future_steps)


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
