"""How a Diffusion Forcing agent acts: the fields that the header of its weights carries."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from dfplan.planner import PlanConfig


@dataclass(frozen=True)
class AgentConfig:
    plan: PlanConfig = PlanConfig()
    """How plans are made."""
    execution: Literal["inverse_dynamics", "diffused_actions"] = "inverse_dynamics"
    """Track the planned observations by learned inverse dynamics, or play the actions that were diffused with them."""
    replan_every: int = 100
    """Environment steps between plans."""
    lookahead: int = 10
    """Environment steps ahead of the plan's clock at which inverse dynamics finds the observation to wish for."""
    speed: float = 1.4
    """Planned steps played in one environment step; above 1 the plan is followed faster than the data drove."""
    window: int = 6
    """Replans try only plan lengths up to this many tokens beyond what is left of the last plan."""

    arrival: float = 0.45
    """A row that is due for a new plan within this distance of its goal (recorded units) stays there: its plan is the
    goal itself, at rest. 0 plans anew even there. Inverse dynamics only."""

    def __post_init__(self) -> None:
        if self.execution not in ("inverse_dynamics", "diffused_actions"):
            raise ValueError(f"execution must be 'inverse_dynamics' or 'diffused_actions', got {self.execution!r}")
        if min(self.replan_every, self.lookahead) < 1 or self.speed <= 0 or self.window < 0:
            raise ValueError(f"replan_every and lookahead must be at least 1, speed positive, window >= 0, got {self}")

    def to_header(self) -> dict[str, Any]:
        """Plain JSON values; `from_header` gives the same config back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> AgentConfig:
        return cls(**(header | {"plan": PlanConfig(**header["plan"])}))
