"""Candidates: plans of many lengths at once from a trajectory model, by Algorithm 2 of Chen et al. 2024 for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dfplan.diffusion import matrices
from dfplan.diffusion.costs import Cost
from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.sampler import Known, Sample, sample
from dfplan.models.packing import Packed, packs
from dfplan.models.token_value import at_level_zero
from dfplan.planning.ask import Ask
from dfplan.planning.asked_costs import by_candidate, violation_cost
from dfplan.planning.costs import ReachSoonest, ReachThroughout, WeightedSum, in_units
from dfplan.planning.draws import TO_GOAL
from dfplan.planning.ends import known_ends
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.past import Past
from dfplan.planning.patterns import ask_pattern
from dfplan.planning.plan import Plan, hold_end
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.projection import Projection

GUIDES = {"throughout": ReachThroughout, "soonest": ReachSoonest}


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
    T = int(horizons.max()) + 1
    lengths = horizons.to(observation.device).repeat_interleave(config.samples, dim=1).flatten()  # (B * N,)
    asked = sequences(model, observation, ask, config, lengths, T, past)
    matrix, present = _matrix(config, model.config.levels, lengths, T), asked.present
    drawn = sample(
        asked.diffusion,
        torch.cat([matrix[..., :1].expand(*matrix.shape[:-1], present), matrix], -1),
        (len(lengths), present + T, model.config.width),
        generator,
        known=asked.known,
        lengths=present + lengths + 1,
        guidance=asked.guidance,
        projection=asked.projection,
        temperature=config.temperature,
        eta=config.eta,
        record=record,
    )
    return plan_of(model, drawn, lengths)


@dataclass(frozen=True)
class Sequences:
    """What is drawn for R candidates: sequences that begin with `present` tokens before the plan's own."""

    known: Known
    """What of it is given."""
    diffusion: Diffusion
    """The model's, whose network does no work beyond their ends."""
    guidance: Guidance | None
    """What steers them."""
    projection: Projection | None
    """What keeps them out of violations."""
    present: int
    """Where in a sequence the plan's first token stands."""


def sequences(
    model: TrajectoryModel,
    observation: Tensor,
    ask: Ask,
    config: PlanConfig,
    lengths: Tensor,
    tokens: int,
    past: Past | None = None,
) -> Sequences:
    """What is drawn for plans of these lengths (B * N,) and at most `tokens` tokens from observations (B, observation_dim);
    N is the number of candidates of each start, which are neighbors."""
    N, present = len(lengths) // len(observation), model.config.present
    ask = replace(ask, goal=None if ask.goal is None else ask.goal.repeat_interleave(N, dim=0))
    starts, before = observation.repeat_interleave(N, dim=0), None if past is None else past.repeated(N)
    to_known = ask if config.goal == "known" else replace(ask, goal=None)
    return Sequences(
        _known(model, starts, to_known, lengths, tokens, before),
        _unpadded(model.diffusion, present + lengths + 1, present + tokens),
        _guidance(model, ask, lengths, N, config),
        _projection(model, ask, lengths, N),
        present,
    )


def plan_of(model: TrajectoryModel, drawn: Sample, lengths: Tensor) -> Plan:
    """The candidates that sampled sequences stand for, of these lengths (R,)."""
    layout, present = model.config.layout, model.config.present
    tokens = drawn.tokens[:, present:, : layout.width]
    seen = [column for column in range(layout.observation_width) if column not in model.config.absent_part]
    return Plan(
        _observations(model, tokens, lengths),
        lengths,
        _of_tokens(drawn.levels, present, seen),
        tokens,
        _actions(model, tokens, lengths) if layout.actions else None,
        history=[
            (
                _observations(model, x[:, present:, : layout.width], lengths),
                _of_tokens(k, present, seen),
            )
            for x, k in drawn.history
        ],
    )


def _matrix(config: PlanConfig, K: int, lengths: Tensor, tokens: int) -> Tensor:
    """The scheduling matrix of plans of these lengths (R,): (M + 1, T), or (M + 1, R, T) where it depends on the length."""
    if config.matrix == "pyramid":
        return matrices.pyramid(tokens, K, config.steps, config.uncertainty)
    token = torch.arange(tokens, dtype=torch.float64)
    to_end = (lengths.cpu().unsqueeze(1) - token).clamp(min=0)
    return matrices.from_lag(config.uncertainty * torch.minimum(token, to_end), K, config.steps)


def _unpadded(diffusion: Diffusion, lengths: Tensor, tokens: int) -> Diffusion:
    """The same diffusion, whose network does no work beyond the ends of sequences of these lengths, where it can be spared."""
    if not packs(diffusion.model) or bool((lengths == tokens).all()):
        return diffusion
    packed = Packed(diffusion.model, lengths.tolist(), tokens).to(lengths.device)
    return Diffusion(packed, diffusion.schedule, diffusion.prediction, diffusion.weighting)


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
    """The config's guides towards the goal and a high value, by their scales, and costs, on tokens as the model sees them."""
    present, width, closing = model.config.present, model.config.layout.width, _closing(model, lengths)
    terms: list[tuple[float, Cost]] = []
    if ask.goal is not None and config.scale > 0:
        terms.append((config.scale, in_units(GUIDES[config.guide](ask.goal, model.config.goal_columns), closing)))
    terms += [(1.0, in_units(by_candidate(one, len(lengths) // each, each), closing)) for one in ask.costs]
    if model.value is not None and config.value_scale > 0:
        value = partial(at_level_zero, model.value)
        terms.append((config.value_scale, lambda x0: -value(x0[:, present:, :width])))
    if not terms:
        return None
    decided = present + config.decided if config.decided else 0
    how: dict[str, Any] = {name: getattr(config, name) for name in ("futures", "future_steps", "candidates", "fading")}
    return Guidance(WeightedSum(terms), decided=decided, **how)


def _projection(model: TrajectoryModel, ask: Ask, lengths: Tensor, each: int) -> Projection | None:
    """The sum of the constraints' violations, on tokens as the model sees them."""
    if not ask.constraints:
        return None
    closing, starts = _closing(model, lengths), len(lengths) // each
    terms = [(1.0, in_units(by_candidate(violation_cost(one), starts, each), closing)) for one in ask.constraints]
    return Projection(WeightedSum(terms))


def _closing(model: TrajectoryModel, lengths: Tensor) -> Callable[[Tensor], Tensor]:
    """From sequences (n * R, T, C) to the closing observations of their plans, of these lengths (R,), in recorded units."""

    def closing(x0: Tensor) -> Tensor:
        last, present = model.config.layout.last, model.config.present
        held = hold_end(x0[:, present:, last], lengths.repeat(len(x0) // len(lengths)))
        return model.observation.denormalize(held)

    return closing


def _of_tokens(levels: Tensor, present: int, columns: list[int]) -> Tensor:
    """Levels (B, T) of a plan's tokens, from those of a sequence: of the least certain of these columns."""
    return levels[:, present:] if levels.ndim == 2 else levels[:, present:, columns].amax(-1)


def _observations(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Observations (B, T, kept, observation_dim) in recorded units; a plan stays at its end beyond its length."""
    layout = model.config.layout
    held = hold_end(tokens[..., : layout.observation_width], lengths)
    return model.observation.denormalize(held.unflatten(-1, (layout.kept, layout.observation_dim)))


def _actions(model: TrajectoryModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Actions (B, S, action_dim) in recorded units of the tokens that hold any; beyond a plan's length the mean action."""
    acted = model.config.acted or tokens.shape[1]
    actions = model.config.layout.unpack_actions(tokens[:, : 1 + acted])
    step = torch.arange(actions.shape[1], device=tokens.device).unsqueeze(-1)
    inside = step < (lengths * model.config.layout.stride).view(-1, 1, 1)
    return model.action.denormalize(torch.where(inside, actions, 0.0))
