"""What a recipe is given for one task: how far plans reach, and how long to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """The numbers of one task that recipes ask for; tokens count the start."""

    coarse: tuple[int, int]
    """Environment steps between two tokens of a Diffusion Forcing plan, and its tokens."""
    bundled: int
    """Tokens of a plan of the paper's recipe, each a bundle of ten steps."""
    sequence: tuple[int, int, int]
    """Steps of a token, tokens of a plan and noise levels of Diffuser and Decision Diffuser."""
    sparse: int
    """Tokens of a plan of Diffusion Veteran, 15 steps apart."""
    speed: float
    """Planned steps that a Diffusion Forcing agent plays in one environment step."""
    arrival: float
    """Distance from its goal, in recorded units, within which a Diffusion Forcing agent stays there."""
    omega: float
    """Strength of Decision Diffuser's guidance."""
    steps: Mapping[str, int]
    """Optimizer steps by recipe, or by a group of recipes; of online recipes, decisions."""
