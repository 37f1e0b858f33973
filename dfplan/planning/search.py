"""Search over partly denoised plans: the best candidates go back into noise in places, and are denoised again.

Every token has a noise level of its own, so that a plan can be taken back where it is bad and stay clean elsewhere: its worst
step, or the place where a constraint is violated, becomes noise, its neighbors get more noise the nearer they are, and the
rest stays as it is. Such a partly denoised plan has many outcomes. Each round draws some, for all starts at once, and keeps the
best as parents of the next round. A parent may also become a token shorter or longer first. The search may stop after any
round. The planner's scores (`dfplan.planning.choice`) decide what is good.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Generator, Tensor

from dfplan.diffusion.sampler import Sample, State, StepOptions, begin, run
from dfplan.planning.ask import Ask
from dfplan.planning.asked_costs import sum_of, violation_cost
from dfplan.planning.choice import Score, judge, price, step_odds, tokens_of
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.past import Past
from dfplan.planning.plan import Plan
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.proposal import plan_of, sequences

NOISE = (0.3, 1.0)
"""Least and most noise, as a share of K, to which the worst place of a plan goes back."""
REACH = (3.0, 12.0)
"""Least and most tokens from there to where a plan stays clean."""
FAINT = 1e-3
"""Chance of a place without a fault to be drawn anew, where the chance of one with a fault is about 1."""


def refine(
    model: TrajectoryModel,
    observation: Tensor,
    ask: Ask,
    config: PlanConfig,
    generator: Generator,
    candidates: Plan,
    scores: Mapping[str, Score],
    past: Past | None = None,
) -> Plan:
    """The best candidates of each start (B, observation_dim) after `config.rounds` rounds of search from the given ones.

    Candidates of one start are neighbors. They are not fewer than before, and the best of them is no worse than before.
    """
    B, began, resized = len(observation), time.monotonic(), _resized(model, ask, config)
    plans = _padded(candidates, model.config.future + 1, model.config.levels) if resized else candidates
    kept = max(len(plans) // B, config.children)
    found = judge(scores, model, plans, ask, len(plans) // B)
    for _ in range(config.rounds):
        if config.seconds and time.monotonic() - began >= config.seconds:
            break
        parents, lengths = _parents(plans, found, config, B, generator, model.config.future if resized else None)
        drawn = _children(model, observation, ask, config, generator, parents, lengths, past)
        plans = _beside(plans, drawn, B)
        found = judge(scores, model, plans, ask, len(plans) // B)
        best = _order(found, plans, config, B)[:, :kept]
        index = (best + _first_rows(plans, B)).flatten()
        plans, found = plans.rows(index), {name: score[index] for name, score in found.items()}
    return plans


def _resized(model: TrajectoryModel, ask: Ask, config: PlanConfig) -> bool:
    """Whether plans of other lengths mean the same: those that end at a known goal."""
    return ask.goal is not None and config.goal == "known" and "goal" not in model.config.condition


def _order(scores: Mapping[str, Tensor], plans: Plan, config: PlanConfig, starts: int) -> Tensor:
    """Candidates of each start (B, N), the best first: by `price`, and in turn by the price to which violations are added, one
    unit as a token. So short ways that violate stay in the search beside what keeps the constraints."""
    found = {name: score.view(starts, -1) for name, score in scores.items()}
    free = price(found, plans.lengths.float().view(starts, -1), config)
    ranks = [cost.nan_to_num(nan=torch.inf).argsort(1).argsort(1) for cost in (free + found.get("violation", 0), free)]
    return torch.minimum(2 * ranks[0], 2 * ranks[1] + 1).argsort(1)


def _parents(
    plans: Plan,
    scores: Mapping[str, Tensor],
    config: PlanConfig,
    starts: int,
    generator: Generator,
    longest: int | None,
) -> tuple[Plan, Tensor]:
    """The plans that are taken back in this round, (B * children) rows, mostly the best, and the lengths that they become."""
    order, device = _order(scores, plans, config, starts), plans.lengths.device
    shape = (starts, config.children)
    rank = (torch.rand(shape, generator=generator, device=device).square() * order.shape[1]).long()
    parents = plans.rows((order.gather(1, rank) + _first_rows(plans, starts)).flatten())
    if longest is None:
        return parents, parents.lengths
    change = torch.randint(-1, 2, parents.lengths.shape, generator=generator, device=device)
    return parents, (parents.lengths + change).clamp(1, longest)


def _children(
    model: TrajectoryModel,
    observation: Tensor,
    ask: Ask,
    config: PlanConfig,
    generator: Generator,
    parents: Plan,
    lengths: Tensor,
    past: Past | None,
) -> Plan:
    """One outcome of each parent, at its new length, after it was taken back into noise around a bad place."""
    tokens = in_time(tokens_of(parents), parents.lengths, lengths)
    faults = found_faults(model, ask, config, tokens, lengths, len(observation), generator)
    k = taken_back(faults, lengths, model.config.levels, generator)
    return again(model, observation, ask, config, generator, tokens, lengths, k, config.steps, past)


def again(
    model: TrajectoryModel,
    observation: Tensor,
    ask: Ask,
    config: PlanConfig,
    generator: Generator,
    tokens: Tensor,
    lengths: Tensor,
    k: Tensor,
    steps: int,
    past: Past | None = None,
) -> Plan:
    """Plans (R, T, C) of these lengths (R,) after noise of the levels k (R, T) is added and taken away again in `steps` steps,
    each of one network evaluation. What is known stays. R is a multiple of the starts (B, observation_dim).
    """
    asked = sequences(model, observation, ask, config, lengths, tokens.shape[1], past)
    shape = (len(lengths), asked.present + tokens.shape[1], model.config.width)
    clean = tokens.new_zeros(shape)
    clean[:, asked.present :, : tokens.shape[2]] = tokens
    k = _as_sequences(model, k)
    state = begin(asked.diffusion, shape, generator, asked.known, asked.present + lengths + 1)
    level = torch.where(state.known, state.levels, k if state.levels.ndim == 2 else k.unsqueeze(-1))
    known = state.known if state.known.ndim == 3 else state.known.unsqueeze(-1)
    noisy = asked.diffusion.schedule.add_noise(clean, level, state.tokens)  # what is not known is noise there
    state = State(torch.where(known, state.tokens, noisy), level, state.known)
    left = torch.linspace(1, 0, steps + 1, dtype=torch.float64, device=k.device)
    rows = torch.round(left.view(-1, 1, 1) * k).long()
    how: StepOptions = {"guidance": asked.guidance, "projection": asked.projection, "eta": config.eta}
    for now in run(asked.diffusion, state, rows, generator, **how):
        state = now
    mask = asked.known.mask if asked.known.mask.ndim == 3 else asked.known.mask.unsqueeze(-1)
    return plan_of(model, Sample(torch.where(mask, asked.known.tokens, state.tokens), state.levels, []), lengths)


def found_faults(
    model: TrajectoryModel,
    ask: Ask,
    config: PlanConfig,
    tokens: Tensor,
    lengths: Tensor,
    starts: int,
    generator: Generator,
) -> Tensor:
    """How bad each step of plans is, (R, T - 1), at least 0: how far below the margin of plausibility; in half of the plans
    that violate a constraint, how much the step has to do with it."""
    faults = tokens.new_zeros(len(tokens), tokens.shape[1] - 1, dtype=torch.float32)
    if model.plausibility is not None:
        faults = (config.margin - step_odds(model, tokens, lengths).float()).clamp(min=0)
    if ask.constraints:
        blamed = _blamed(model, ask, tokens, lengths, len(tokens) // starts)
        turn = torch.rand(len(tokens), 1, generator=generator, device=tokens.device) < 0.5
        faults = torch.where(turn & (blamed > 0).any(1, keepdim=True), blamed, faults)
    return faults


def _blamed(model: TrajectoryModel, ask: Ask, tokens: Tensor, lengths: Tensor, each: int) -> Tensor:
    """How much each step of plans (R, T, C) has to do with what they violate, (R, T - 1), at most 1."""
    with torch.enable_grad():
        x = tokens.detach().float().requires_grad_()
        levels = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
        plans = plan_of(model, Sample(_as_sequences(model, x), _as_sequences(model, levels), []), lengths)
        violated = sum_of([violation_cost(one) for one in ask.constraints], plans, each)
        assert violated is not None
        (slope,) = torch.autograd.grad(violated.sum(), x)
    steep = slope.norm(dim=-1)[:, 1:]
    return steep / steep.amax(1, keepdim=True).clamp(min=1e-9)


def _as_sequences(model: TrajectoryModel, x: Tensor) -> Tensor:
    """Tokens (R, T, ...) as the later part of whole sequences, whose first tokens are none of the plan's."""
    return torch.cat([torch.zeros_like(x[:, :1]).expand(-1, model.config.present, *x.shape[2:]), x], 1)


def taken_back(faults: Tensor, lengths: Tensor, K: int, generator: Generator) -> Tensor:
    """Levels (R, T): high at a random place of each plan, mostly a bad one, and falling to 0 on both sides."""
    R, steps = faults.shape
    inside = torch.arange(steps, device=faults.device) < lengths.unsqueeze(1)
    faults = faults.nan_to_num(0.0, 0.0, 0.0)  # of plans that are lost
    place = torch.multinomial((faults + FAINT) * inside, 1, generator=generator) + 0.5
    top, reach = (
        low + (high - low) * torch.rand(R, 1, generator=generator, device=faults.device) for low, high in (NOISE, REACH)
    )
    away = (torch.arange(steps + 1, device=faults.device) - place).abs()
    return (K * top * (1 - away / reach).clamp(min=0)).ceil().clamp(max=K).long()


def in_time(x: Tensor, lengths: Tensor, new: Tensor, passed: Tensor | float = 0.0) -> Tensor:
    """Tokens (R, T, C) of plans of these lengths (R,), interpolated so that they take the new lengths (R,) instead.

    Of each plan the first `passed` (R,) tokens, or one number for all, are left out.
    """
    T, row = x.shape[1], torch.arange(len(x), device=x.device).unsqueeze(1)
    begin_at = torch.as_tensor(passed, device=x.device).expand(len(x)).unsqueeze(1)
    pace = (lengths.unsqueeze(1) - begin_at) / new.unsqueeze(1)
    time = begin_at + torch.arange(T, device=x.device) * pace
    time = torch.minimum(time, lengths.unsqueeze(1).to(time.dtype))
    before = time.floor().long()
    after = torch.minimum(before + 1, lengths.unsqueeze(1))
    share = (time - before).unsqueeze(-1)
    return x[row, before] * (1 - share) + x[row, after] * share


def _first_rows(plans: Plan, starts: int) -> Tensor:
    """The row of each start's first candidate, (B, 1)."""
    each = len(plans) // starts
    return each * torch.arange(starts, device=plans.lengths.device).unsqueeze(1)


def _padded(plans: Plan, tokens: int, K: int) -> Plan:
    """The same with so many tokens, the new ones beyond all ends."""

    def longer(x: Tensor, length: int) -> Tensor:
        return torch.cat([x, x[:, -1:].expand(-1, length - x.shape[1], *x.shape[2:])], 1)

    missing = tokens - plans.levels.shape[1]
    return replace(
        plans,
        observations=longer(plans.observations, tokens),
        levels=torch.nn.functional.pad(plans.levels, (0, missing), value=K),
        tokens=longer(tokens_of(plans), tokens),
        history=[],
    )


def _beside(plans: Plan, others: Plan, starts: int) -> Plan:
    """The candidates of both for each start, as one plan without a history."""

    def joined(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([part.unflatten(0, (starts, -1)) for part in (a, b)], 1).flatten(0, 1)

    actions = None
    if plans.actions is not None and others.actions is not None:
        actions = joined(plans.actions, others.actions)
    return Plan(
        joined(plans.observations, others.observations),
        joined(plans.lengths, others.lengths),
        joined(plans.levels, others.levels),
        joined(tokens_of(plans), tokens_of(others)),
        actions,
    )
