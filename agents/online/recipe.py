"""What an online learner is trained by, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OnlineRecipe:
    """What to train with stable-baselines3, in which environment, for how long."""

    weights: str
    """Name of the trained weights, one for each task and recipe."""
    env_id: str
    """Environment that it learns in."""
    algorithm: str
    """Name of a class of stable-baselines3, such as 'SAC'."""
    steps: int
    """Decisions of the whole run, over all copies of the environment."""
    copies: int = 16
    """Copies of the environment that are stepped together."""
    repeat: int = 4
    """Environment steps that a decision lasts while learning; the agent that comes of it decides at every step."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the class, in plain JSON; what is not named has stable-baselines3's default."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise on actions while learning, for a policy that has none of its own."""
    hindsight: int = 0
    """Goals in hindsight for each real transition (HER); 0 learns the reward of the environment's own goals only."""
    evaluations: int = 10
    """Points of the learning curve."""
