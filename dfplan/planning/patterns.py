"""What is known of a sequence, as a pattern of noise levels: how training draws such patterns, and how planning asks by one.

A level belongs to a column of a token: 0 where it is known, K where it is absent and stays so, anything between while it is
denoised. So one model is a policy (the next tokens unknown), a planner to a goal (a part of the last token known), a model
that is asked by a goal or a return (the condition token), and it needs no input that is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dfplan.diffusion.levels import Drawn, inpainted, unknown
from dfplan.diffusion.sampler import Known
from dfplan.planning.draws import partial_goals
from dfplan.planning.model_config import Condition, TrajectoryModelConfig
from dfplan.planning.past import Past

UNSEEN = 0.25
"""Share of the training sequences whose past is cut off somewhere, as it is where an episode begins."""


def condition_token(
    config: TrajectoryModelConfig, batch: int, device: torch.device, given: Mapping[Condition, Tensor]
) -> tuple[Tensor, Tensor]:
    """The token before the others (B, 1, C), and its levels (B, 1, C): 0 for what is given, K for all else.

    `given` are normalized: a goal (B, G), a return (B, 1). NaN stands for what is not asked for in a row.
    """
    token = torch.zeros(batch, 1, config.width, device=device)
    k = torch.full_like(token, config.levels, dtype=torch.int64)
    for name, value in given.items():
        columns = list(config.goal_part) if name == "goal" else [config.width - 1]
        token[:, 0, columns] = value.nan_to_num()
        k[:, 0, columns] = torch.where(value.isnan(), config.levels, 0)
    return token, k


def draw_pattern(
    config: TrajectoryModelConfig,
    x0: Tensor,
    drawn: Drawn,
    valid: Tensor,
    given: Mapping[Condition, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Drawn]:
    """Training sequences (B, T', C) from tokens (B, T, C'), and levels (B, T', C) such as planning asks for.

    `drawn` are levels of the tokens, `valid` (B, T) says which were recorded whole, `given` is what may be asked for, as of
    `condition_token`.
    """
    (B, T, W), device = x0.shape, x0.device
    position, present = torch.arange(T, device=device), config.history
    goal, action = (_mask(config, columns, device) for columns in (config.goal_part, config.action_part))
    drawn = partial_goals(drawn, goal)
    x0 = torch.cat([x0, x0.new_zeros(B, T, config.width - W)], -1)
    whole = valid & (position > 0)
    if config.condition or config.history:
        cut = (_uniform(B, generator, device) * (present + 1)).long() * (_uniform(B, generator, device) < UNSEEN)
        whole = whole & (position >= cut)
        seen = (position == present) | ((position < present) & (whole | ((position == 0) & (cut == 0) & valid)))
        drawn = inpainted(drawn, seen.unsqueeze(-1))
        drawn = unknown(drawn, ((position < present) & ~seen).unsqueeze(-1), config.levels)
    if config.missing:
        share = config.missing * _uniform(B, generator, device)
        lost = (torch.rand((B, T), generator=generator, device=device) < share) & (position <= present)
        drawn = unknown(drawn, lost.unsqueeze(-1) & _mask(config, config.observation_part, device), config.levels)
    if config.in_flight:
        decided = (_uniform(B, generator, device) * (config.in_flight + 1)).long()
        flying = whole & (position > present) & (position <= present + decided)
        drawn = inpainted(drawn, flying.unsqueeze(-1) & action)
    # The first token of a window has no actions, the present has none where they were not seen, and those beyond `acted` have
    # none; tokens have no return.
    none = (position == 0) | ((position <= present) & ~whole) | (position > present + (config.acted or T))
    never = _mask(config, config.return_part + config.absent_part, device)
    drawn = unknown(drawn, (none.unsqueeze(-1) & action) | never, config.levels)
    if not config.condition:
        return x0, drawn
    kept = {name: _uniform(B, generator, device) >= config.unconditional for name in given}
    asked = {name: value.masked_fill(~kept[name], torch.nan) for name, value in given.items()}
    token, k = condition_token(config, B, device, asked)
    k, counted = (torch.cat(pair, 1) for pair in ((k, drawn.k), (torch.zeros_like(k, dtype=torch.bool), drawn.counted)))
    return torch.cat([token, x0], 1), Drawn(k, counted, torch.cat([torch.zeros_like(drawn.goal[:, :1]), drawn.goal], 1))


def ask_pattern(
    config: TrajectoryModelConfig,
    start: Tensor,
    tokens: int,
    given: Mapping[Condition, Tensor],
    lengths: Tensor,
    past: Past | None = None,
) -> Known:
    """What is known of plans that begin with the tokens `start` (R, C'): sequences of which `tokens` begin with the present.

    `given` is as of `condition_token`; a goal that this one does not hold is reached `lengths` (R,) tokens after the present.
    `past` is normalized; without it nothing was seen. Observations may hold NaN, where they are unknown.
    """
    (R, W), device, present, layout = start.shape, start.device, config.present, config.layout
    row = torch.arange(R, device=device)
    values = start.new_zeros(R, present + tokens, config.width)
    level = torch.full(values.shape, config.levels, device=device)
    known = torch.zeros_like(values, dtype=torch.bool)
    action = _mask(config, config.action_part, device)
    known[:, : present + 1] = True
    never = _mask(config, config.return_part + config.absent_part, device)
    known |= never
    if config.acted:
        known[:, present + 1 + config.acted :] |= action
    if config.condition:
        asked = {name: value for name, value in given.items() if name in config.condition}
        values[:, :1], level[:, :1] = condition_token(config, R, device, asked)
    values[:, present, :W], level[:, present, : layout.observation_width] = start, 0
    level[:, present] = level[:, present].masked_fill(never, config.levels)
    if past is not None and config.history:
        seen, whole = past.seen_tokens(layout.stride)
        before = slice(present - config.history, present + 1)
        observations = torch.cat([past.observations, start[:, None, layout.last]], 1)
        actions = torch.cat([past.actions, past.actions[:, -1:]], 1)  # the last row is no part of a token
        values[:, before, :W] = layout.pack(observations, actions)
        level[:, before, : layout.observation_width] = torch.where(seen, 0, config.levels).unsqueeze(-1)
        level[:, before, action] = torch.where(whole, 0, config.levels).unsqueeze(-1)
    level = level.masked_fill(values.isnan(), config.levels)
    if "goal" in given and "goal" not in config.condition:
        columns, at = torch.tensor(config.goal_part, device=device), (present + lengths).unsqueeze(1)
        values[row[:, None], at, columns], level[row[:, None], at, columns] = given["goal"], 0
        known[row[:, None], at, columns] = True
    if past is not None and past.decided.shape[1]:
        count = min(past.decided.shape[1] // layout.stride, tokens - 1)  # a plan may be shorter than what is decided
        bundled = past.decided[:, : count * layout.stride].unflatten(1, (count, layout.stride)).flatten(2)
        there = bundled.isfinite().all(-1, keepdim=True)
        flying = slice(present + 1, present + 1 + count)
        values[:, flying, action] = bundled.nan_to_num()
        level[:, flying, action] = torch.where(there, 0, config.levels)
        known[:, flying, action] = there
    return Known(values.masked_fill(level == config.levels, 0.0), known, level)  # of what is absent nothing shows


def _mask(config: TrajectoryModelConfig, columns: tuple[int, ...], device: torch.device) -> Tensor:
    """(C,) bool: True in these columns of a token."""
    mask = torch.zeros(config.width, dtype=torch.bool, device=device)
    mask[list(columns)] = True
    return mask


def _uniform(batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(batch, 1) numbers in [0, 1)."""
    return torch.rand((batch, 1), generator=generator, device=device, dtype=torch.float32)
