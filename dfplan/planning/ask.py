"""What a planner is asked for, as one value: a goal, costs, constraints and a return."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

Cost = Callable[[Tensor], Tensor]
"""Closing observations of tokens (B, T, observation_dim), in recorded units, to a differentiable cost (B,) of each plan."""


@dataclass(frozen=True)
class Ask:
    """What plans are asked for. Every part may be left out; a planner that has no use for a part refuses it.

    Costs and constraints are functions of the tokens' closing observations (rows, T, observation_dim) in recorded units;
    beyond a plan's length they see its end. The rows are those that are planned at the time: not always all of a batch. One
    function alone stands for a sequence of one. An agent that was asked for functions can be pickled if they can.

    Raises ValueError for costs and constraints that are not functions, and for a return that is not a finite number.
    """

    goal: Any = None
    """(G,) for all rows, or (B, G), in recorded units: where the plan is to end."""
    costs: Sequence[Cost] = ()
    """Lower is better: each steers sampling and counts in the choice among candidates, by its own scale. One unit weighs as
    much as one token of length."""
    constraints: Sequence[Cost] = ()
    """Violations (rows,), at least 0, where 0 is kept. While a plan is sampled, what is predicted is moved out of them
    (`dfplan.planning.projection`). They decide the choice before anything else: of the candidates that can be followed none is
    chosen while another violates less."""
    return_: float | None = None
    """Sum of rewards that the plan is asked to have, of planners that have learned returns."""

    def __post_init__(self) -> None:
        for name in ("costs", "constraints"):
            given = getattr(self, name)
            functions = (given,) if callable(given) else tuple(given) if isinstance(given, Sequence) else (given,)
            if not all(callable(function) for function in functions):
                raise ValueError(
                    f"{name} must be functions of observations (rows, tokens, observation_dim), got {given!r}"
                )
            object.__setattr__(self, name, functions)
        number = isinstance(self.return_, Real) and not isinstance(self.return_, bool)
        if self.return_ is not None and not (number and math.isfinite(self.return_)):
            raise ValueError(f"the return that is asked for must be a finite number, got {self.return_!r}")

    @property
    def steered(self) -> bool:
        """Whether there are costs or constraints."""
        return bool(self.costs or self.constraints)
