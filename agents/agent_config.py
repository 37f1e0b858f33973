"""How a Diffusion Forcing agent acts: the fields that the header of its weights carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dfplan.fields import CheckedFields, Count, NotNegative, Positive, Share, Whole
from dfplan.planning.plan_config import PlanConfig


@dataclass(frozen=True)
class AgentConfig(CheckedFields):
    """How a Diffusion Forcing agent acts. The defaults are those of no task: what suits one stands in its recipe."""

    plan: PlanConfig = PlanConfig()
    """How plans are made."""
    execution: Literal["inverse_dynamics", "diffused_actions"] = "inverse_dynamics"
    """Track the planned observations by learned inverse dynamics, or play the actions that were diffused with them."""
    replan_every: Count = 100
    """Environment steps between plans."""
    lookahead: Count = 10
    """Environment steps from now to the target of inverse dynamics on the plan."""
    speed: Positive = 1.0
    """Planned steps played in one environment step; above 1 the plan is followed faster than the data drove."""
    window: Whole = 6
    """Replans try only plan lengths up to this many tokens beyond what is left of the last plan."""
    arrival: NotNegative = 0.0
    """A row that is due for a new plan within this Euclidean distance of its goal (recorded units) stays there: its plan is the
    goal itself, at rest. 0 plans anew even there. Inverse dynamics only."""
    return_quantile: Share | None = None
    """Where no return is asked for, plans are asked for this quantile of the recorded episodes' returns (0.9: nine of ten were
    lower); None asks for none. Models that are asked for returns only."""
    keep: Whole = 0
    """Tokens of the last plan whose actions a new one keeps: they are decided already. Diffused actions only, and at most the
    model's `in_flight`."""
    in_turn: tuple[Positive, ...] = ()
    """For each of the model's `goal_groups`, the distance from the goal (recorded units) within which it is there. A plan is
    asked for the first group that is not there yet, alone. (): a goal is asked for as a whole."""
    lowest_first: bool = False
    """Among these the one with the lowest goal in its last column comes first, as where things lie on one another; else they
    come in their own order."""
