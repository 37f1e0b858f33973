"""Candidates: plans of many lengths at once from a trajectory model, by Algorithm 2 of Chen et al. 2024 for all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dfplan.diffusion import matrices
from dfplan.diffusion.costs import Cost
from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.sampler import Known, sample
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

GUIDES = {"throughout": ReachThroughout, "soonest": ReachSoonest}
MATRICES = {"pyramid": matrices.pyramid, "trapezoid": matrices.trapezoid}


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
        _unpadded(model.diffusion, present + lengths + 1, present + T),
        torch.cat([matrix[:, :1].expand(-1, present), matrix], 1),
        (len(lengths), present + T, model.config.width),
        generator,
        known=_known(model, starts, ask if config.goal == "known" else replace(ask, goal=None), lengths, T, before),
        lengths=present + lengths + 1,
        guidance=_guidance(model, ask, lengths, N, config),
        temperature=config.temperature,
        eta=config.eta,
        record=record,
    )
    layout = model.config.layout
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
    """The config's guides towards the goal and a high value, by their scales, costs and constraints, on tokens as the model
    sees them."""
    last, present, width = model.config.layout.last, model.config.present, model.config.layout.width

    def closing(x0: Tensor) -> Tensor:
        held = hold_end(x0[:, present:, last], lengths.repeat(len(x0) // len(lengths)))
        return model.observation.denormalize(held)

    terms: list[tuple[float, Cost]] = []
    if ask.goal is not None and config.scale > 0:
        terms.append((config.scale, in_units(GUIDES[config.guide](ask.goal, model.config.goal_columns), closing)))
    own = (*ask.costs, *(violation_cost(constraint) for constraint in ask.constraints))
    terms += [(1.0, in_units(by_candidate(one, len(lengths) // each, each), closing)) for one in own]
    if model.value is not None and config.value_scale > 0:
        value = partial(at_level_zero, model.value)
        terms.append((config.value_scale, lambda x0: -value(x0[:, present:, :width])))
    if not terms:
        return None
    decided = present + config.decided if config.decided else 0
    futures, steps, candidates = config.futures, config.future_steps, config.candidates
    return Guidance(WeightedSum(terms), futures=futures, future_steps=steps, decided=decided, candidates=candidates)


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
