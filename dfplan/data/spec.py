"""How wide observations and actions are, and where in an observation a goal stands: what networks are sized by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from dfplan.data.trajectories import Trajectories
from dfplan.fields import Size, check_columns, check_fields


@dataclass(frozen=True)
class Spec:
    """Widths of recorded behavior. Raises ValueError for goal columns that an observation does not have."""

    observation_dim: Size
    """Columns of an observation."""
    action_dim: Size
    """Columns of an action."""
    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal is given; none where there are no goals."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_columns(self.goal_columns, self.observation_dim, "goal_columns")

    @classmethod
    def of(cls, data: Trajectories, goal_columns: tuple[int, ...] = ()) -> Self:
        """The widths of recorded data, whose goals, if any, stand in these columns of an observation."""
        return cls(data.observations.shape[1], data.actions.shape[1], goal_columns)
