"""What recorded data say of a task: widths, goals, rewards and ends. Networks and plans are sized by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.goals import mixing_steps
from dfplan.data.trajectories import Trajectories, rewarding
from dfplan.fields import Size, Whole, check_columns, check_fields


@dataclass(frozen=True)
class Spec:
    """What data say of a task. Raises ValueError for goal columns that an observation does not have."""

    observation_dim: Size
    """Columns of an observation."""
    action_dim: Size
    """Columns of an action."""
    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal is given; none where there are no goals."""
    features: Features = AS_RECORDED
    """How what an environment observes becomes such an observation."""
    longest: Whole = 0
    """Steps of the longest recorded episode; 0 where there are no data."""
    mixing: Whole = 0
    """Steps after which the goal's columns have changed as much as they ever do: `mixing_steps`. 0 where there are no goals."""
    rewards: bool = False
    """Whether something is to be gained: see `dfplan.data.trajectories.rewarding`."""
    terminates: bool = False
    """Whether an episode can end because the task does."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_columns(self.goal_columns, self.observation_dim, "goal_columns")

    @classmethod
    def of(cls, data: Trajectories, goal_columns: tuple[int, ...] | None = None) -> Self:
        """What recorded data say. Goals stand in `goal_columns` of an observation, by default those of the data's features."""
        goal = data.features.goal_columns if goal_columns is None else goal_columns
        return cls(
            data.observations.shape[1],
            data.actions.shape[1],
            goal,
            data.features,
            int((data.episode_ends - data.episode_starts).max()),
            mixing_steps(data, goal) if goal else 0,
            rewarding(data),
            bool(data.terminations.any()),
        )
