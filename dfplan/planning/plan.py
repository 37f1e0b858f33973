"""A plan as a value: its tokens, their noise levels, and what they say in recorded units. All planners make this class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, Self

import torch
from torch import Tensor
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from dfplan.config_json import checked


class RowJson(TypedDict):
    """A row of sampling as JSON."""

    observations: list[Any]
    levels: list[list[int]]


class PlanJson(TypedDict):
    """A plan as JSON: nested lists of numbers."""

    observations: list[Any]
    lengths: list[int]
    levels: list[list[int]]
    tokens: list[Any] | None
    actions: list[Any] | None
    scores: dict[str, list[float]]
    history: list[RowJson]
    spread: NotRequired[list[list[float]] | None]


@dataclass(frozen=True)
class Plan:
    """A plan for each row of a batch: the chosen ones of `B` starts, or all `B` candidates among which a planner chooses.

    Not to be confused with what was executed: an agent follows a plan and replans.
    """

    observations: Tensor
    """(B, T, kept, observation_dim) in recorded units: token 0 is the start; beyond a plan's length its end repeats."""
    lengths: Tensor
    """(B,) tokens after the start: the plan's horizon."""
    levels: Tensor
    """(B, T) noise level of each token: 0 is clean; tokens beyond a plan's length are pure noise."""
    tokens: Tensor | None = None
    """(B, T, C) normalized tokens as sampling left them, of planners that have any."""
    actions: Tensor | None = None
    """(B, S, action_dim) planned actions in recorded units, one for each step, where the planner gives any; beyond a plan's
    length they are the data's mean action."""
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    """What the choice among candidates was made by, (B,) each: see `dfplan.planning.choice`."""
    history: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """If it was recorded, for each row of sampling: observations (B, T, kept, observation_dim) and levels (B, T)."""
    spread: Tensor | None = None
    """(B, T) how far futures that end as the plan does are spread at each token, in recorded units, where it was asked for."""

    @classmethod
    def whole(cls, observations: Tensor, **parts: Any) -> Self:
        """Plans of one length whose tokens are all clean; `parts` as of the class."""
        (B, T), device = observations.shape[:2], observations.device
        lengths, levels = torch.full((B,), T - 1, device=device), torch.zeros(B, T, dtype=torch.int64, device=device)
        return cls(observations, lengths, levels, **parts)

    def __len__(self) -> int:
        """Rows B."""
        return len(self.lengths)

    def rows(self, index: Tensor) -> Plan:
        """The plans of these rows, (R,) whole numbers."""
        return Plan(
            self.observations[index],
            self.lengths[index],
            self.levels[index],
            None if self.tokens is None else self.tokens[index],
            None if self.actions is None else self.actions[index],
            {name: score[index] for name, score in self.scores.items()},
            [(observations[index], levels[index]) for observations, levels in self.history],
            None if self.spread is None else self.spread[index],
        )

    def to_json(self) -> PlanJson:
        """The plan as plain JSON values, for viewers; `from_json` gives it back, to the bit."""

        def plain(part: Tensor | None) -> Any:
            return None if part is None else part.detach().cpu().tolist()

        return {
            "observations": plain(self.observations),
            "lengths": plain(self.lengths),
            "levels": plain(self.levels),
            "tokens": plain(self.tokens),
            "actions": plain(self.actions),
            "scores": {name: plain(score) for name, score in self.scores.items()},
            "history": [{"observations": plain(x), "levels": plain(k)} for x, k in self.history],
            "spread": plain(self.spread),
        }

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The plan of values that `to_json` gave. Raises ValueError, with one sentence, for anything else."""
        checked(PlanJson, values, "plan")
        try:
            real, whole = (
                lambda part, dtype=dtype: torch.tensor(part, dtype=dtype) for dtype in (torch.float32, torch.int64)
            )
            plan = cls(
                real(values["observations"]),
                whole(values["lengths"]),
                whole(values["levels"]),
                None if values["tokens"] is None else real(values["tokens"]),
                None if values["actions"] is None else real(values["actions"]),
                {name: real(score) for name, score in values["scores"].items()},
                [(real(row["observations"]), whole(row["levels"])) for row in values["history"]],
                None if values.get("spread") is None else real(values["spread"]),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"a plan's parts are nested lists of numbers: {error}") from None
        plan._check()
        return plan

    def _check(self) -> None:
        """Raise ValueError unless the parts are of one batch and one number of tokens."""
        B, T = len(self.lengths), self.observations.shape[1] if self.observations.ndim == 4 else -1
        parts = {
            "observations": (self.observations, 4, (B, T)),
            "lengths": (self.lengths, 1, (B,)),
            "levels": (self.levels, 2, (B, T)),
            "tokens": (self.tokens, 3, (B, T)),
            "actions": (self.actions, 3, (B,)),
            "spread": (self.spread, 2, (B, T)),
        }
        parts |= {f"scores {name!r}": (score, 1, (B,)) for name, score in self.scores.items()}
        for x, k in self.history:
            parts |= {"history's observations": (x, 4, (B, T)), "history's levels": (k, 2, (B, T))}
        for name, (part, ndim, shape) in parts.items():
            if part is not None and (part.ndim != ndim or part.shape[: len(shape)] != shape):
                raise ValueError(
                    f"a plan's {name} have {ndim} dimensions, the first of them {shape}, but these are {tuple(part.shape)}"
                )


def hold_end(x: Tensor, lengths: Tensor) -> Tensor:
    """Tokens (B, T, ...) where those beyond `lengths` (B,) repeat the one at it: noise without meaning lies there."""
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    return x[rows, torch.minimum(torch.arange(x.shape[1], device=x.device), lengths.unsqueeze(1))]
