"""Planning with a trajectory model: many candidate plans of many lengths at once, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from dfplan import scheduling
from dfplan.guidance import Guidance, Guide, ReachSoonest, ReachThroughout, WeightedSum, in_units
from dfplan.sampler import Known, sample
from dfplan.trajectory_model import TrajectoryModel


@dataclass(frozen=True)
class PlanConfig:
    """How a plan is made. The defaults are those of the default recipe."""

    goal: Literal["known", "guided"] = "known"
    """Whether the goal is a known clean token at a plan's end, or only the guide draws the plan towards it."""
    horizons: int = 20
    """Number of plan lengths tried, evenly spread over 1..T-1 tokens; 1 tries the longest only."""
    samples: int = 1
    """Candidates of each length."""
    steps: int = 8
    """Denoising steps of one token from pure noise to clean."""
    matrix: Literal["pyramid", "trapezoid"] = "pyramid"
    """Zig-zag from the start onwards, or from both ends towards the middle."""
    uncertainty: float = 0.2
    """Rows by which each token lags the one before it; 0 is full-sequence sampling."""
    eta: float = 0.0
    """0 for DDIM, 1 for DDPM."""
    guide: Literal["throughout", "soonest"] = "soonest"
    """The cost that guides sampling: the mean distance to the goal, or the time to reach it."""
    scale: float = 0.0
    """Strength of the guide; 0 turns it off."""
    futures: int = 0
    """Sampled futures of Monte Carlo guidance; 0 guides by the one prediction."""
    future_steps: int = 1
    """Denoising steps that draw one future."""
    margin: float = -4.0
    """A plan is possible if the critic's log-odds of each of its steps are at least this."""
    price: float = 1.0
    """Tokens of length that each unit of log-odds below the margin costs when candidates are compared."""

    def __post_init__(self) -> None:
        if min(self.horizons, self.samples, self.steps) < 1:
            raise ValueError(f"horizons, samples and steps must be at least 1, got {self}")
        if self.scale < 0:
            raise ValueError(f"the guide's scale must not be negative, got {self.scale}")


@dataclass(frozen=True)
class Plan:
    """The chosen plan of each start. Not to be confused with what was executed: the agent follows it and replans."""

    observations: Tensor
    """(B, T, kept, observation_dim) in recorded units: token 0 is the start; beyond a plan's length its end repeats."""
    actions: Tensor | None
    """(B, (T - 1) * stride, action_dim) diffused actions in recorded units, where the tokens hold actions."""
    lengths: Tensor
    """(B,) tokens after the start: the plan's horizon."""
    odds: Tensor
    """(B,) the critic's log-odds of the plan's worst step; below the margin, no candidate was possible."""
    history: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """For each row of sampling: observations (B, T, kept, observation_dim) of the chosen plan, levels (B, T)."""


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
    """Plan from observations (B, observation_dim) to goals (B, G), all in recorded units.

    horizons (B, H) are the plan lengths to try for each start, in tokens; without it the config's own. ``guide`` is a
    further cost, on tokens' closing observations (B, T, observation_dim) in recorded units.
    """
    if config.goal == "known" and goal is None:
        raise ValueError("planning with the goal as a known token needs a goal")
    if horizons is None:
        horizons = spread(1, model.config.tokens - 1, config.horizons).expand(len(observation), -1)
    B, H = horizons.shape
    N = H * config.samples
    T = int(horizons.max()) + 1
    layout = model.config.layout
    lengths = horizons.repeat_interleave(config.samples, dim=1).flatten()
    start = layout.state_token(model.observation.normalize(observation)).repeat_interleave(N, dim=0)
    goals = None if goal is None else goal.repeat_interleave(N, dim=0)
    tokens = start.new_zeros(B * N, T, layout.width)
    tokens[:, 0] = start
    mask = torch.zeros(B * N, T, dtype=torch.bool)
    mask[:, 0] = True
    if config.goal == "known":
        assert goals is not None
        row = torch.arange(B * N)
        tokens[row, lengths] = layout.state_token(goal_observation(model, goals))
        mask[row, lengths] = True
    shape = getattr(scheduling, config.matrix)
    matrix = shape(T, model.config.levels, config.steps, config.uncertainty)
    guidance = _guidance(model, goals, config, guide)
    drawn = sample(
        model.diffusion, matrix, tuple(tokens.shape), generator,
        known=Known(tokens, mask), lengths=lengths + 1, guidance=guidance, eta=config.eta, record=record,
    )
    odds = worst_step(model, drawn.tokens, lengths)
    best = choose(odds.view(B, N), lengths.view(B, N), config.margin, config.price)
    pick = torch.arange(B) * N + best
    return Plan(
        observations=_observations(model, drawn.tokens[pick], lengths[pick]),
        actions=model.action.denormalize(layout.unpack_actions(drawn.tokens[pick])) if layout.actions else None,
        lengths=lengths[pick],
        odds=odds[pick],
        history=[(_observations(model, x[pick], lengths[pick]), k[pick]) for x, k in drawn.history],
    )


def goal_observation(model: TrajectoryModel, goal: Tensor) -> Tensor:
    """A normalised observation (B, observation_dim) at the goal (B, G); columns other than the goal's at the data's mean."""
    wished = model.observation.mean.repeat(len(goal), 1)
    wished[:, list(model.config.goal_columns)] = goal
    return model.observation.normalize(wished)


def worst_step(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The critic's log-odds of the least plausible step between tokens 0..lengths: (B,)."""
    places = tokens[..., model.config.layout.last][..., list(model.config.goal_columns)]
    odds = model.critic(places[:, :-1], places[:, 1:])
    inside = torch.arange(odds.shape[1]) < lengths.unsqueeze(1)
    return odds.masked_fill(~inside, float("inf")).amin(1)


def choose(odds: Tensor, lengths: Tensor, margin: float, price: float) -> Tensor:
    """Of candidates (B, N), the shortest, where odds below the margin count as so much more length. Index (B,)."""
    # Among equals the more plausible wins: squashed odds are worth less than one token.
    cost = lengths + price * (margin - odds).clamp(min=0) - torch.sigmoid(odds)
    return cost.argmin(dim=1)


def spread(low: int, high: int, count: int) -> Tensor:
    """``count`` whole numbers evenly over low..high, the last one exactly high: (count,) int64."""
    return torch.linspace(high, low, count).round().long().flip(0)


def _guidance(
    model: TrajectoryModel, goals: Tensor | None, config: PlanConfig, extra: Guide | None
) -> Guidance | None:
    """The config's guide towards the goal and the user's own, on tokens as the model sees them."""
    last = model.config.layout.last
    terms: list[tuple[float, Guide]] = []
    if goals is not None and config.scale > 0:
        guides = {"throughout": ReachThroughout, "soonest": ReachSoonest}
        terms.append((1.0, guides[config.guide](goals, model.config.goal_columns)))
    if extra is not None:
        terms.append((1.0, extra))
    if not terms:
        return None
    guide = in_units(WeightedSum(terms), lambda x0: model.observation.denormalize(x0[..., last]))
    return Guidance(guide, config.scale or 1.0, config.futures, config.future_steps)


def _observations(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Observations (B, T, kept, observation_dim) in recorded units; a plan stays at its end beyond its length."""
    layout = model.config.layout
    B, T, _ = tokens.shape
    inside = torch.minimum(torch.arange(T), lengths.unsqueeze(1))
    held = tokens[torch.arange(B).unsqueeze(1), inside]
    return model.observation.denormalize(held[..., : layout.observation_width].reshape(B, T, layout.kept, -1))
