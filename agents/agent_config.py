"""How a Diffusion Forcing agent acts: the fields that the header of its weights carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dfplan.fields import CheckedFields, Count, NotNegative, Positive, Share, Whole
from dfplan.planning.model import TrajectoryModel
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
    streaming: bool = False
    """Whether plans to a goal stay alive: they move on in each decision by one network evaluation (`dfplan.planning.stream`),
    and are made anew only where they are lost. `replan_every` is then how long a row rests at its goal at a time."""
    ends_below: NotNegative = 60.0
    """Log-odds below the plan's margin at which a living plan is lost."""
    doubt: NotNegative = 0.0
    """A plan is made anew where what is observed is farther from it than so many of its spreads and `doubt_from`. 0: it is not
    looked at. Plans of some `spread` to a goal only, which do not stream."""
    doubt_from: NotNegative = 0.3
    """Distance from a plan (recorded units) that is never doubted."""
    return_quantile: Share | None = None
    """Where no return is asked for, plans are asked for this quantile of the recorded episodes' returns (0.9: nine of ten were
    lower); None asks for none. Models that are asked for returns only."""
    remembered: Whole | None = None
    """Environment steps before the present that plans are shown at most; None: all of the model's history."""
    jumps: NotNegative = 0.0
    """An observation is unknown where a column has changed by more than so many times the largest recorded change in as many
    steps: an outlier, which nobody has marked (`dfplan.planning.jumps`). 0: it is not looked at. Models that have learned from
    `missing` observations only."""
    keep: Whole = 0
    """Tokens of the last plan whose actions a new one keeps: they are decided already. Diffused actions only, and at most the
    model's `in_flight`."""
    in_turn: tuple[Positive, ...] = ()
    """For each of the model's `goal_groups`, the distance from the goal (recorded units) within which it is there. A plan is
    asked for the first group that is not there yet, alone, or, of a model with `kinds`, for what is next on the way through
    recorded configurations. (): a goal is asked for as a whole."""
    lowest_first: bool = False
    """Among these the one with the lowest goal in its last column comes first, as where things lie on one another; else they
    come in their own order."""
    clearance: NotNegative = 0.0
    """A group waits while another one, of as many columns, is within this distance (recorded units) of its goal and, with
    `lowest_first`, not below it; of two that wait for each other, one is asked to go half the way first. 0: none waits."""

    def require_of(self, model: TrajectoryModel) -> None:
        """ValueError, with one sentence, for a model that has not learned what is needed to act so."""
        learned, diffused = model.config, self.execution == "diffused_actions"
        if diffused and not learned.layout.actions:
            raise ValueError("this model's tokens hold no actions, so that it cannot execute diffused ones")
        if not diffused and model.inverse is None:
            raise ValueError("this model has learned no inverse dynamics: expected execution='diffused_actions'")
        played = (learned.acted or learned.future) * learned.layout.stride
        if diffused and played < self.replan_every:
            held = f"this model's plans hold the actions of {played} steps"
            raise ValueError(f"{held}: expected replan_every of at most that, got {self.replan_every}")
        if self.keep > (learned.in_flight if diffused else 0):
            most = f"at most what the model has in_flight, {learned.in_flight}"
            raise ValueError(f"keep needs diffused actions, and is {most}, got {self.keep}")
        if model.inverse is not None and self.lookahead > learned.longest_gap:
            gap = f"the inverse dynamics' longest gap {learned.longest_gap}"
            raise ValueError(f"lookahead {self.lookahead} is beyond {gap}")
        if self.in_turn and len(self.in_turn) != len(learned.goal_groups):
            groups = f"each of the model's goal_groups, {learned.goal_groups or 'none'}"
            raise ValueError(f"in_turn needs a distance for {groups}, got {self.in_turn}")
        if (learned.alike or learned.kinds) and not self.in_turn:
            raise ValueError(
                "a model of things that are alike, or of kinds, is asked for one at a time: expected in_turn"
            )
        if self.clearance and (not self.in_turn or len(set(learned.goal_groups)) > 1):
            raise ValueError("clearance needs in_turn, and goal_groups of as many columns each")
        if self.plan.trials and not (model.outcomes and model.inverse and model.plausibility):
            raise ValueError("trials need a model that has learned outcomes, plausibility and inverse dynamics")
        if self.jumps and not learned.missing:
            raise ValueError("jumps needs a model that has learned from missing observations")
        if self.doubt and (self.plan.spread < 2 or self.streaming):
            raise ValueError("doubt needs plans with a spread, which do not stream: expected spread of at least 2")
        if self.streaming and (model.plausibility is None or learned.condition or learned.history or diffused):
            raise ValueError(
                "streaming needs a model that has learned plausibility and inverse dynamics, without a condition and a history"
            )
        if self.return_quantile is not None and "return" not in learned.condition:
            raise ValueError("return_quantile needs a model whose condition is a return")
